"""How much each answer token counts in the loss: what can be said before a model is asked; numpy only."""

from hedgerow.weights.answer import Answer, Region, Weigher
from hedgerow.weights.idf import Idf, answer_texts
from hedgerow.weights.lexical import Keywords, Lexical, Rarity, Repeats, StopWords
from hedgerow.weights.rules import PRESETS, TASKS, sample_weight
from hedgerow.weights.schedule import TaskSchedule
from hedgerow.weights.spans import AnswerSpan, Grounded, Named, Opening, Spans, Speech, Tagger
from hedgerow.weights.weighting import Weighting

__all__ = [
    "PRESETS", "TASKS", "Answer", "AnswerSpan", "Grounded", "Idf", "Keywords", "Lexical", "Named", "Opening",
    "Rarity", "Region", "Repeats", "Spans", "Speech", "StopWords", "Tagger", "TaskSchedule", "Weigher",
    "Weighting", "answer_texts", "sample_weight",
]  # fmt: skip
