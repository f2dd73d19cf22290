"""How it is learned: the model, its layers and file, training and evaluation, in Keras."""
