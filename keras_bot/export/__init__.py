"""Export of trained networks as SavedModels or single files, and prediction with SavedModels."""
