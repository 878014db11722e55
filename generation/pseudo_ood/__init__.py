"""Pseudo-OOD and augmented images for training, made of train sources: texture and id_aug candidates."""
