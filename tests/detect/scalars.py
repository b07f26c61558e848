"""Figures of two sets of scores as plain numbers, as the tests compare them."""

from memorization_suite.detection.evaluation import roc


def auc(positives, negatives) -> float:
    return float(roc.curve(positives, negatives).auc()[0])


def accuracy(positives, negatives) -> float:
    return float(roc.curve(positives, negatives).accuracy()[0])


def tpr_at(positives, negatives, fpr: float, rule: str = "at_most") -> float:
    return float(roc.curve(positives, negatives).tpr_at(fpr, rule)[0])
