"""The games that this project trains on, by name, and for how many iterations."""

from mfglib.games import BeachBar, FourRooms, LinearQuadratic, Market

# The paper's constants, without its bounds; and games in which agents attract each other more and more (c_m / c_x).
COHESION = dict(A=0.95, B=0.7, A_bar=0.1, c_a=1.4, horizon=15, c_x=5.0)
GAMES = {
    "lq": LinearQuadratic(),
    "lq-cohesion-0.2": LinearQuadratic(c_m=1.0, **COHESION),
    "lq-cohesion-1": LinearQuadratic(c_m=5.0, **COHESION),
    "lq-cohesion-2": LinearQuadratic(c_m=10.0, **COHESION),
    "lq-bounded": LinearQuadratic.paper(),
    "beach-bar": BeachBar(),
    "four-rooms": FourRooms(),
    "market": Market(),
}
ITERATIONS = {"lq-bounded": 10, "beach-bar": 30, "four-rooms": 25, "market": 15}
LONG = {"four-rooms": 100}  # where more iterations still pay
FORGIVING = ("corrective", "mirror")  # averages that forget blunders: 20 iterations do


def iterations(game: str, preset: str, averaging: str = "uniform") -> int:
    """K of a game of `GAMES`."""
    if preset == "smoke":
        return 2
    if averaging in FORGIVING:
        return 20
    return (LONG if preset == "paper" and game in LONG else ITERATIONS).get(game, 20)
