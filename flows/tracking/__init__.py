"""What MLflow is told: a run for each pipeline, one below it for each concept, and what waits while MLflow is down."""

from flows.tracking.nights import note_of_night
from flows.tracking.notes import Note, metrics, note_of, parameters
from flows.tracking.tracker import Tracker

__all__ = ["Note", "Tracker", "metrics", "note_of", "note_of_night", "parameters"]
