"""From a folder of photos to pieces that a training reads fast: checked, freed of doubles, cut."""
