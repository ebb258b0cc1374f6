"""Results in a notebook: runs, a frame of them, differences, figures, and a pruned network.

The cells begin with ``# %%``: VS Code, PyCharm and Spyder show them as a notebook, and
``jupytext --to ipynb`` makes one. ``python examples/results_in_a_notebook.py`` executes all.
"""

# %% [markdown]
# A few runs: every combination of methods and seeds. What is done is not repeated, so this cell
# returns at once the second time. The profile `smoke` is quick and learns little: leave it out, and
# the settings, too.

# %%
import matplotlib.pyplot as plt
import torch

import harness

ended = harness.run_matrix(
    tasks="digits",
    pruners=["dense", "crop_s"],
    sparsities=[0.8],
    seeds=[0, 1],
    profile="smoke",
    settings={"epochs": 4},
    executor="debug",  # in this process, which suits such short runs
)
print({run: each["status"] for run, each in ended["runs"].items()})

# %% [markdown]
# A frame with a row for each run. A column is named like its place in the record.

# %%
frame = harness.read_results("results")
columns = ["spec.pruner", "spec.seed", "sparsity.weights", "quality.test", "cost.macs_effective"]
print(frame[columns].sort_values(["spec.pruner", "spec.seed"]).to_string(index=False))

# %% [markdown]
# Runs of one seed share initial weights and batches, so each is compared with the dense run of its
# seed. The mean of these differences has less noise than the difference of the means.

# %%
accuracy = frame.pivot(index="spec.seed", columns="spec.pruner", values="quality.test")
difference = accuracy.drop(columns="dense").sub(accuracy["dense"], axis="index")
print(difference.agg(["mean", "std"]).round(2))

# %% [markdown]
# Accuracy against what inference costs.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
for method, runs in frame.groupby("spec.pruner"):
    left.scatter(runs["cost.macs_effective"], runs["quality.test"], label=method)
left.set(xlabel="multiply-accumulates carried out", ylabel="test accuracy [%]", xscale="log")
left.legend()

# %% [markdown]
# What happened within one run: its record has the epochs of each training, in order.

# %%
record = harness.run_pairing(
    "digits", "crop_s", sparsity=0.8, profile="smoke", settings={"epochs": 4}
)
epochs = [epoch for event in record["events"] for epoch in event.get("epochs", [])]
right.plot([e["spent"] for e in epochs], [e["validation"]["accuracy"] for e in epochs])
right.set(xlabel="steps", ylabel="validation accuracy [%]", title=record["run_id"])
figure.tight_layout()
figure.savefig("results.png")

# %% [markdown]
# The pruned network, ready for use: it maps a batch of images to logits.

# %%
network = harness.load(f"results/{record['run_id']}")
images = torch.zeros(4, 1, 8, 8)
with torch.no_grad():
    print(network(images).argmax(1))
