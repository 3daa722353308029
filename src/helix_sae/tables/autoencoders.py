"""Tables of the autoencoders: how they were trained, and how well they describe the activations."""

from __future__ import annotations

from helix_sae.tables.columns import SITE, correlation, count, number, share, text
from helix_sae.tables.schema import Table

AUTOENCODER_TABLES = {
    "training_history": Table(
        meaning="The state of one autoencoder at one step of its training.",
        columns={
            "site": SITE,
            "config": text("Name of the configuration."),
            "step": count("Steps taken."),
            "tokens": count("Tokens learnt from.", "tokens"),
            "loss": number("Value of the objective."),
            "explained_variance": number("Share of the batch's variance that is reconstructed."),
            "l0": number("Active features a token.", "features"),
            "dead_share": share("Share of features that have not fired lately."),
        },
    ),
    "sae_metrics": Table(
        meaning="How well one autoencoder describes the activations of the validation part.",
        columns={
            "site": SITE,
            "config": text("Name of the configuration."),
            "n_tokens": count("Tokens judged on.", "tokens"),
            "l0": number("Active features a token.", "features"),
            "mse": number("Mean squared error a token."),
            "explained_variance": number("Share of the variance that is reconstructed."),
            "cosine": correlation("Mean cosine between activation and reconstruction."),
            "dead_share": share("Share of features that never fire."),
            "dense_share": share("Share of features that fire at very many tokens."),
            "start_cosine": correlation("Mean cosine of a living feature's direction with where it began."),
            "chance_cosine": correlation("Mean matched cosine of two random dictionaries of the same shape."),
            "untrained_cosine": correlation("The same of the seeds' starts, over all pairs of seeds."),
        },
    ),
    "sae_sweep": Table(
        meaning="Autoencoders of one rung of a sweep at one site: means over their seeds.",
        columns={
            "rung": text("Name of the settings: that of a grid, and a number; present for those in use."),
            "site": SITE,
            "architecture": text("Name of the architecture."),
            "d_sae": count("Features.", "features"),
            "sparsity": text("The setting that makes it sparse, and its value."),
            "learning_rate": number("Peak rate of Adam."),
            "n_steps": count("Steps of the training.", "steps"),
            "n_seeds": count("Starts and orders of the data.", "seeds"),
            "explained_variance": number("Share of the held-out variance that is reconstructed."),
            "l0": number("Active features a token.", "features"),
            "n_features": number("Features active on a held-out token.", "features"),
            "pw_mcc": correlation("Mean matched cosine of the living features, over pairs of seeds."),
            "pw_mcc_lowest": correlation("The lowest of a pair of seeds."),
            "chance_cosine": correlation("Mean matched cosine of two random dictionaries of the same shape."),
            "start_cosine": correlation("Mean cosine of a living feature's direction with where it began."),
            "settings": text("The settings as JSON."),
        },
    ),
    "sae_downstream": Table(
        meaning="What the model computes on from the reconstructions at one site.",
        columns={
            "site": SITE,
            "n_sequences": count("Sequences run.", "sequences"),
            "n_tokens": count("Tokens predicted.", "tokens"),
            "embedding_cosine": correlation(
                "Mean cosine of the embedding with that of the undisturbed model."
            ),
            "ce_clean": number("Next-token cross-entropy of the undisturbed model.", "nats"),
            "ce_reconstructed": number("The same with the reconstruction in place.", "nats"),
            "ce_mean_ablated": number("The same with the mean activation in place.", "nats"),
            "ce_recovered": number("Share of the loss by the mean that the reconstruction wins back."),
        },
    ),
    "sparse_probing": Table(
        meaning="How well one concept is told by few features of one site.",
        columns={
            "site": SITE,
            "concept": text("Name of the concept."),
            "probe": text("What tells it: so many features, or all activations."),
            "k": count("Features used."),
            "auc": share("Area under the ROC curve on the validation part."),
            "balanced_accuracy": share("Mean of the shares of positives and negatives told right."),
            "n_judged": count("Nucleotides judged on.", "nucleotides"),
        },
    ),
}
