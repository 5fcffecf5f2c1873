"""Pages for people: the card of a dataset, and the charts and the frame that the page of a training log shares."""
