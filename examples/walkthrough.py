# %% [markdown]
# # One memorized caption, from the first magnitude to the page
#
# Stable Diffusion reproduces training images for some prompts. This notebook shows it on `tiny`,
# a miniature that memorized some of its own training images, and ends with the same steps for
# Stable Diffusion. It runs in about a minute on a laptop.
#
# **Numbers and pictures here are the embedded model's, not Stable Diffusion's.**

# %%
import matplotlib.pyplot as plt
import pandas as pd

import memorization_suite as suite

ROW = 33  # of the embedded model's memorized captions
common = {"model_id": "tiny", "trace": True}
one_caption = {
    **common,
    "start": ROW,
    "end": ROW + 1,
    "n_samples_per_prompt": 4,
    "output_path": "walkthrough/memorized",
}

# %% [markdown]
# ## It is memorized
#
# Four images of one caption, each from noise of its own. The first picture is the training image.

# %%
copied = suite.generate(suite.plan(method="no_mitigation", **one_caption))
copied

# %% [markdown]
# `copy` is the suite's measure of a copy where no checkpoint is at hand: 0.75 or more is one.
# With a checkpoint of SSCD, `sscd_gt` is the field's. `alignment` says how well the caption is
# still shown: of `tiny`, the probability of its subject.

# %%
suite.score(copied, ["copy", "alignment"])

# %% [markdown]
# ## It shows in the first step
#
# `||e(x, c) - e(x, "")||` is the magnitude of the conditional noise prediction. For memorized
# captions it is large at once. Every run with `trace=True` writes it for every step. Eight
# ordinary captions for comparison:

# %%
eight_captions = {
    **common,
    "prompts": "../tiny/prompts/tiny_ordinary_test.csv",
    "end": 8,
    "n_samples_per_prompt": 1,
    "output_path": "walkthrough/ordinary",
}
ordinary = suite.generate(suite.plan(method="no_mitigation", **eight_captions))


def magnitudes(run):
    """A row a step, a column an image."""
    trace = pd.read_csv(run.path / "trace.csv")
    return trace.pivot(index="step", columns=["prompt_index", "sample_index"], values="magnitude")


figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(magnitudes(ordinary), color="gray", linewidth=1)
axes.plot(magnitudes(copied), color="black")
axes.set(
    xlabel="step", ylabel="magnitude", title="memorized (black), ordinary (gray); embedded model"
)
plt.show()

# %% [markdown]
# ## Another start
#
# Han et al. change the initial noise until that magnitude is low: `per_sample` each image by
# itself until a target, `batch_wise` all of a caption by a few steps, with guidance from step tau
# on. The settings come from the model's preset, which was chosen on other captions.

# %%
adjusted = suite.generate(suite.plan(method="per_sample", **one_caption))
adjusted

# %%
early = suite.generate(suite.plan(method="batch_wise", **one_caption))
early

# %%
runs = {"no mitigation": copied, "per sample": adjusted, "batch-wise": early}
rows = []
for name, run in runs.items():
    scores = suite.score(run, ["copy", "alignment"]).frame()
    means = scores.groupby("quantity")["value"].mean()
    rows.append({"method": name, "first magnitude": magnitudes(run).iloc[0].mean(), **means})
pd.DataFrame(rows).round(2)

# %% [markdown]
# One setting of batch-wise adjustment does not suit every caption, nor do four images of one
# caption compare methods: `docs/RESULTS.md` has all captions of the test split, with intervals.

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
colors = {"no mitigation": "black", "per sample": "#D55E00", "batch-wise": "#0072B2"}
for name, run in runs.items():
    axes.plot(magnitudes(run).mean(axis=1), color=colors[name], label=name)
axes.set(xlabel="step", ylabel="magnitude", title="mean of four images; embedded model")
axes.legend()
plt.show()

# %% [markdown]
# ## Detectors read the same sign
#
# Sixteen memorized and sixteen ordinary captions, two noises each.

# %%
plan = suite.plan_detection(
    model_id="tiny",
    detector="noise_norm",
    end=16,
    n_samples_per_prompt=2,
    output_path="walkthrough/detections",
)
suite.detect(plan)

# %% [markdown]
# ## One page of all of it
#
# Summary, trade-off, and a gallery on equal noise; one file to send around.

# %%
suite.report(["walkthrough/memorized", "walkthrough/detections"], "walkthrough/page.html")

# %% [markdown]
# ## The same with Stable Diffusion
#
# On a GPU, with the prompts, training images and checkpoints that `download/` gets (see its
# README):
#
# ```python
# sd = {
#     "model_id": "CompVis/stable-diffusion-v1-4",
#     "prompts": "prompts/memorized_laion_prompts.csv",
#     "trace": True,
# }
# run = suite.generate(suite.plan(method="per_sample", target_loss=0.7, end=10, **sd))
# suite.score(run)
# ```
#
# Nothing else changes: the methods, the metrics, the page. What the paper reports there, and what
# is known of the embedded models, is in `docs/RESULTS.md`.
