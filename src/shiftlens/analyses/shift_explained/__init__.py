"""The shift explained: which prompt tokens make a response more probable in the tuned model than in the base."""
