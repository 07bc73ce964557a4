-- Whether a suspect is ready that a worker may run now: a task that has lost its worker twice in a row.
-- $1 the worker's labels, $2 may it run strict tasks?, $3 labels and $4 names that are paused, $5 limited labels,
-- $6 their limits
SELECT EXISTS (SELECT FROM asynctaskd.tasks
               WHERE status = 'pending' AND losses >= 2 AND ($2 OR priority = 0)
                 AND string_to_array(label_set, ',') <@ $1::text[] AND NOT string_to_array(label_set, ',') && $3::text[]
                 AND name <> ALL ($4::text[])
                 AND NOT EXISTS (SELECT FROM unnest($5::text[], $6::integer[]) AS limited(label, most)
                                 WHERE limited.label = ANY (string_to_array(label_set, ','))
                                   AND (SELECT coalesce(sum(permits), 0) FROM asynctaskd.label_permits AS p
                                        WHERE p.label = limited.label) >= limited.most))
