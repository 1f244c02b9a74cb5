"""The games: what is played. Each asks the population only for what it needs."""

from mfglib.games.base import Game, Population, check_game
from mfglib.games.linear_quadratic import LinearQuadratic

__all__ = ["Game", "LinearQuadratic", "Population", "check_game"]
