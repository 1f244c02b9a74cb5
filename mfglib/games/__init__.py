"""The games."""

from mfglib.games.base import Game, Population, check_game
from mfglib.games.beach_bar import BeachBar
from mfglib.games.domain import Domain
from mfglib.games.four_rooms import FourRooms
from mfglib.games.linear_quadratic import LinearQuadratic

__all__ = ["BeachBar", "Domain", "FourRooms", "Game", "LinearQuadratic", "Population", "check_game"]
