"""The games, and what games of one's own are built from."""

from mfglib.sources import on_demand

__getattr__, __dir__, __all__ = on_demand(
    __name__,
    {
        "mfglib.games.beach_bar": "BeachBar",
        "mfglib.games.bounded": "BoundedGame Law",
        "mfglib.games.domain": "Domain",
        "mfglib.games.four_rooms": "FourRooms",
        "mfglib.games.linear_quadratic": "LinearQuadratic",
        "mfglib.games.market": "Market",
        "mfglib.protocols": "Game Population",
        "mfglib.trial": "check_game",
    },
)
