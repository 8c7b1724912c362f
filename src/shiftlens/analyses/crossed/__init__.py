"""Both models on both responses: did the model change, or the text?"""
