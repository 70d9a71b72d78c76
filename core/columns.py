"""The columns that many tables share, each declared once."""

from __future__ import annotations

from taxlens.core.table import count, number, text

SUITE = text("name of the suite")
EVERY_SUITE = text("name of the suite", blank="all suites together")
KIND = text("capability or benefit")
TEMPLATE = text("plain or chat: how the prompts were given to the models")
METRIC = text("accuracy, accuracy_norm, probability (0..1), margin, nll or kl (nats)")
METHOD = text("attribution method")
LEVEL = text("component, head, neuron or singular")
COMPONENT = text("unit of the network, as named below")
ITEM = text("id of the item")
GROUP = text("group of the item: what is resampled together")
MODEL = text("base or aligned")
SITE = text("where in a block the activations are read")
LAYER = count("block, from 0")
HEAD = count("attention head", blank="the whole row", optional=True)
LOW = number("lower end of the 95 % interval, by group bootstrap")
HIGH = number("upper end of the 95 % interval")
N_ITEMS = count("items measured")
N_GROUPS = count("groups resampled")
EFFECT = number("part of the tax, in the metric's unit; positive is loss")
TAX = number("base minus aligned, in the metric's unit (nll, kl: aligned minus base); positive is loss")
SHARE = number("effect over the tax", blank="the tax is 0")
