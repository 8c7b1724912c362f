"""One room per analysis: what it computes, its findings, its figures and its section of the page."""
