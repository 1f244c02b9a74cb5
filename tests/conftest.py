import matplotlib
import torch

matplotlib.use("Agg")  # before anything imports pyplot
torch.set_num_threads(1)  # the same sums on every machine, and no quarrel over cores
