-- Who holds what is asked on the first page of the UI: a few rows of a hundred thousand.
CREATE INDEX reviews_claimed ON reviews (claimed_by) WHERE status = 'claimed';
