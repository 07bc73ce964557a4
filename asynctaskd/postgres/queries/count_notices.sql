-- How many notices were sent, and how many saved because nobody who waits could have run the task.
SELECT sent, saved FROM asynctaskd.notices
