"""The tables of the features: effects of latents, their closure and gate, both models, controls, rivals."""

from __future__ import annotations

from taxlens.core import table as of
from taxlens.core.table import Table, count, flag, number, text

DICTIONARY = text("name of the dictionary")
LATENT = text("number of the latent; rest, error, excluded, above, prompts or unexplained: what is not a latent")
ADDRESS = text("site and layer that the dictionary reads")

FEATURES = Table(
    "features",
    "a latent's effect on a suite's tax, or one of the terms beside the latents",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": text("metric of the tax; log_odds: log-odds of the gold choice among the choices (nats)"),
        "dictionary": DICTIONARY,
        "level": text("latent, or term: what the latents do not hold"),
        "latent": LATENT,
        "effect": of.EFFECT,
        "low": of.LOW,
        "high": of.HIGH,
        "share": of.SHARE,
        "quadrature_error": number("change of the effect from the coarser rule to the last"),
        "tokens": count("tokens at which it is in use", blank="a term"),
        "mass": number("share of the change's squared length that it carries alone", blank="a term"),
        "switched": number("share of its size at tokens where it is on in one model only", blank="a term"),
    },
    key=("suite", "template", "metric", "dictionary", "level", "latent"),
)
FEATURES_ITEMS = Table(
    "features_items",
    "a listed latent's effect on an item",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "dictionary": DICTIONARY,
        "latent": LATENT,
        "item": of.ITEM,
        "effect": of.EFFECT,
    },
    key=("suite", "template", "metric", "dictionary", "latent", "item"),
)
FEATURES_TOKENS = Table(
    "features_tokens",
    "a listed latent's effect at a token of an item",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "dictionary": DICTIONARY,
        "latent": LATENT,
        "item": of.ITEM,
        "choice": count("choice whose score is followed"),
        "token": count("place of the token in the row"),
        "text": text("the token", blank="a token without text"),
        "effect": of.EFFECT,
    },
    key=("suite", "template", "metric", "dictionary", "latent", "item", "choice", "token"),
)
FEATURES_CLOSURE = Table(
    "features_closure",
    "how a suite's account closes in a metric, and whether its latents may be read",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "dictionary": DICTIONARY,
        "address": ADDRESS,
        "reading": text("least_squares, encoder or preactivation: how the change is coded"),
        "tax": of.TAX,
        "latents": number("sum of the latents' effects"),
        "error": number("what the decoders leave of the change"),
        "excluded": number("what crosses at BOS and high-norm tokens"),
        "above": number("effects of the components above the address"),
        "prompts": number("what other prompts or configs are worth; 0 where both models are asked alike"),
        "unexplained": number("tax minus all of these: error of the quadrature"),
        "unexplained_share": number("unexplained over tax"),
        "error_share": number("error over tax"),
        "cancellation": number("sum of the latents' sizes over the size of their sum"),
        "movement": number(
            "what listed latents, the rest and the error changed by from the coarser rule, sizes summed, over tax"
        ),
        "switched": number("share of the latents' size at tokens where they are on in one model only"),
        "explained": number("share of the change's squared length that the decoders in use explain"),
        "explained_low": number("lower end of its 95 % interval"),
        "random": number("the same of as many random decoders"),
        "margin_low": number("lower end of the 95 % interval of explained minus random"),
        "gate": flag("whether the dictionary explains more of the change than random decoders"),
        "verdict": text("why the latents may not be read", blank="they may"),
        "gradients": count("gradients taken"),
        "n_items": of.N_ITEMS,
        "n_groups": of.N_GROUPS,
    },
    key=("suite", "template", "metric", "dictionary"),
)
FEATURES_LATENTS = Table(
    "features_latents",
    "a latent in both models, on a suite's own tokens",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "dictionary": DICTIONARY,
        "latent": text("number of the latent"),
        "rate_base": number("share of tokens at which it is on, base (a difference dictionary: 0)"),
        "rate_aligned": number(
            "share of tokens at which it is on, aligned (of the change, for a difference dictionary)"
        ),
        "mean_on_base": number("mean code where on, base"),
        "mean_on_aligned": number("mean code where on, aligned"),
        "difference": number("aligned minus base, mean code of a token, items averaged"),
        "low": of.LOW,
        "high": of.HIGH,
        "p": number("p that the difference is 0, flipping groups"),
        "p_adjusted": number("p adjusted over all latents by the largest statistic"),
        "nu_error": number(
            "how much of the latent the aligned model holds, over the base, in what other latents leave"
        ),
        "nu_reconstruction": number("the same in the reconstruction"),
        "norm_ratio": number("aligned decoder norm over the sum of both (crosscoder)", blank="one decoder"),
        "refit_base": number("held-out R^2 of a direction refitted on base rows for the base's code"),
        "refit_aligned": number("the same refitted on aligned rows"),
        "state": text("intact, suppressed, attenuated, rotated, erased, gained or undetermined", blank="not told"),
    },
    key=("suite", "template", "dictionary", "latent"),
)
FEATURES_DICTIONARY = Table(
    "features_dictionary",
    "how a dictionary reads a model on a suite's own tokens",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "dictionary": DICTIONARY,
        "model": text("base, aligned or change (what a difference dictionary reads)"),
        "explained": number("share of variance explained at the tokens read"),
        "active": number("latents on at a token"),
        "never": number("share of latents that never fire on the suite"),
        "error_norm": number("norm of the error over norm of the activation, mean"),
        "excluded": count("tokens left out: BOS and high norms"),
        "tokens": count("tokens read"),
        "loss_recovered": number(
            "share of the loss, over a stream of zeros, kept by the reconstruction", blank="the change"
        ),
        "note": text("what speaks against reading this model with it", blank="nothing"),
    },
    key=("suite", "template", "dictionary", "model"),
)
FEATURES_CONTROLS = Table(
    "features_controls",
    "what giving something back, or taking it away, returns of the tax on items it was not chosen on",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "dictionary": DICTIONARY,
        "what": text(
            "leading, all, matched_mass, matched_rate; or a rival: adl, pca, probe, random_rank, eigenvectors"
        ),
        "draw": count("number of the draw, of those drawn at random"),
        "count": count("latents or directions"),
        "side": text("restored (in aligned), removed (from base), or both: the mean of the two"),
        "predicted": number("share of the tax by the account", blank="not an effect of latents"),
        "returned": number("share of the tax returned on held-out items"),
        "low": of.LOW,
        "high": of.HIGH,
        "mass": number("share of the change's squared length that it carries", blank="not known"),
    },
    key=("suite", "template", "metric", "dictionary", "what", "draw", "count", "side"),
)
FEATURES_CUT = Table(
    "features_cut",
    "the account at a cut: the stream alone moves, the aligned model's upper weights stay",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "dictionary": DICTIONARY,
        "stream": number("what the stream alone explains: aligned model on base's stream minus on its own"),
        "upper": number("what the weights above explain: base minus aligned, both on base's stream"),
        "integrated": number("sum of latents, error and excluded tokens along the line between the streams"),
        "unexplained_share": number("stream minus integrated, over the stream's size"),
        "agreement": number("correlation of the latents' effects with those of the weight path"),
        "nodes": count("nodes on the line"),
    },
    key=("suite", "template", "metric", "dictionary"),
)
FEATURES_COMPONENTS = Table(
    "features_components",
    "what a component's change of weights did to a latent",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "dictionary": DICTIONARY,
        "latent": text("number of the latent"),
        "component": of.COMPONENT,
        "layer": count("block of the component, from 0; -1: outside the blocks"),
        "change": number("part of the change of the latent's code, summed over an item's tokens, items averaged"),
        "share": number("the same over the latent's whole change", blank="the code does not change"),
        "closure": number("sum over components minus the measured change, over that change's size", blank="no change"),
    },
    key=("suite", "template", "dictionary", "latent", "component"),
)
FEATURES_NAMES = Table(
    "features_names",
    "a context in which a latent is strong, or a token that its decoder writes towards or away from",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "dictionary": DICTIONARY,
        "latent": text("number of the latent"),
        "kind": text("context; raises or lowers: tokens of the unembedding, direct path alone"),
        "rank": count("place, from 1"),
        "item": text("item of the context", blank="a token"),
        "text": text("the context with its token in double brackets, or the token", blank="a token without text"),
        "value": number("code of the context's token; z of a token's logit among all tokens"),
    },
    key=("suite", "template", "dictionary", "latent", "kind", "rank"),
)
FEATURES_CONTEXTS = Table(
    "features_contexts",
    "a token around one at which a latent is strong, with the latent's code in both models",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "dictionary": DICTIONARY,
        "latent": text("number of the latent"),
        "rank": count("place of the context, from 1: the strongest"),
        "offset": count("tokens after the strongest one; below 0: before it"),
        "text": text("the token", blank="a token without text"),
        "base": number("code in base (a difference dictionary: 0)", blank="a token left out"),
        "aligned": number("code in aligned (a difference dictionary: of the change)", blank="a token left out"),
    },
    key=("suite", "template", "dictionary", "latent", "rank", "offset"),
)
FEATURES_CLAIMS = Table(
    "features_claims",
    "a claim on a suite's account, and whether it passed a control",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "dictionary": DICTIONARY,
        "claim": text("what is claimed"),
        "control": text("what it is held against"),
        "metric": text("metric of the tax", blank="the same for all"),
        "value": number("what was measured"),
        "low": of.LOW,
        "high": of.HIGH,
        "bound": number("where it passes: 1 for returned over predicted (.7 to 1.3 pass)"),
        "passed": flag("whether it passed"),
    },
    key=("suite", "template", "dictionary", "claim", "control", "metric"),
)
FEATURE_TABLES = (
    FEATURES, FEATURES_CLOSURE, FEATURES_ITEMS, FEATURES_TOKENS, FEATURES_LATENTS, FEATURES_DICTIONARY, FEATURES_CONTROLS,
    FEATURES_CLAIMS, FEATURES_CUT, FEATURES_COMPONENTS, FEATURES_NAMES, FEATURES_CONTEXTS,
)  # fmt: skip
"""All of them."""
