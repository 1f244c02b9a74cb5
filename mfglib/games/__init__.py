"""The games, and what games of one's own are built from."""

from mfglib.sources import on_demand

__getattr__, __dir__, __all__ = on_demand(
    __name__,
    {
        "BeachBar": "mfglib.games.beach_bar",
        "BoundedGame": "mfglib.games.bounded",
        "Domain": "mfglib.games.domain",
        "FourRooms": "mfglib.games.four_rooms",
        "Game": "mfglib.protocols",
        "Law": "mfglib.games.bounded",
        "LinearQuadratic": "mfglib.games.linear_quadratic",
        "Population": "mfglib.protocols",
        "check_game": "mfglib.protocols",
    },
)
