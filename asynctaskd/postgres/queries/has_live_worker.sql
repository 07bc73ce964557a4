-- Whether any worker is live.
SELECT EXISTS (SELECT FROM asynctaskd.workers AS w WHERE asynctaskd.is_live(w))
