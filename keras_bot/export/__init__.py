"""Trained networks out as SavedModels, and SavedModels back in for prediction."""
