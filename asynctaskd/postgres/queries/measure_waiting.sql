-- How many tasks are ready and since when, by label set (NULL: the strict lane), control tasks aside.
-- $1 how many tasks are looked at in all, about; $2 how many ranges of ids: one for each weight of each label set
--
-- Each range is cut into parts, fewer where there are many ranges, and so many tasks are looked at in each part.
-- A part that holds more tasks than are looked at is taken to go on as densely as it begins. So the counts are exact
-- where little waits, and cost no more where a million does.
WITH RECURSIVE ranges (label_set, place, nth) AS (
    (SELECT t.label_set, -t.weight, 1::bigint FROM asynctaskd.tasks AS t
     WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 ORDER BY t.label_set, -t.weight LIMIT 1)
    UNION ALL
    SELECT next.label_set, next.place, ranges.nth + 1
    FROM ranges CROSS JOIN LATERAL (
        SELECT t.label_set, -t.weight AS place FROM asynctaskd.tasks AS t
        WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0
          AND (t.label_set, -t.weight) > (ranges.label_set, ranges.place)
        ORDER BY t.label_set, -t.weight LIMIT 1) AS next
    WHERE ranges.nth < $2::bigint
), cut AS MATERIALIZED (
    SELECT parts, greatest(least($1::bigint / (parts * ranges), 100), 10) AS tasks
    FROM (SELECT count(*) + 1 AS ranges, greatest(least(256 / (count(*) + 1), 32), 1) AS parts FROM ranges) AS counted
), normal AS MATERIALIZED (
    SELECT ranges.label_set, ranges.place, first.id AS first, (last.id - first.id) / cut.parts + 1 AS width
    FROM cut CROSS JOIN ranges CROSS JOIN LATERAL (
        SELECT t.id FROM asynctaskd.tasks AS t
        WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set = ranges.label_set
          AND -t.weight = ranges.place
        ORDER BY t.id LIMIT 1) AS first
    CROSS JOIN LATERAL (
        SELECT t.id FROM asynctaskd.tasks AS t
        WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set = ranges.label_set
          AND -t.weight = ranges.place
        ORDER BY t.id DESC LIMIT 1) AS last
), strict AS MATERIALIZED (
    SELECT min(id) AS first, (max(id) - min(id)) / (SELECT parts FROM cut) + 1 AS width
    FROM (
        (SELECT t.id FROM asynctaskd.tasks AS t WHERE t.status = 'pending' AND t.losses < 2 AND t.priority > 0
         ORDER BY t.id LIMIT 1)
        UNION ALL
        (SELECT t.id FROM asynctaskd.tasks AS t WHERE t.status = 'pending' AND t.losses < 2 AND t.priority > 0
         ORDER BY t.id DESC LIMIT 1)) AS ends
), looked AS (
    SELECT normal.label_set, normal.first + part * normal.width AS start, normal.width, few.*
    FROM cut CROSS JOIN normal CROSS JOIN generate_series(0, cut.parts - 1) AS part CROSS JOIN LATERAL (
        SELECT count(*) AS found, max(row.id) AS up_to, min(greatest(row.created_at, row.run_at)) AS since
        FROM (SELECT t.id, t.created_at, t.run_at FROM asynctaskd.tasks AS t
              WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set = normal.label_set
                AND -t.weight = normal.place AND t.id >= normal.first + part * normal.width
                AND t.id < normal.first + (part + 1) * normal.width
              ORDER BY t.id LIMIT cut.tasks) AS row) AS few
    UNION ALL
    SELECT NULL, strict.first + part * strict.width, strict.width, few.*
    FROM cut CROSS JOIN strict CROSS JOIN generate_series(0, cut.parts - 1) AS part CROSS JOIN LATERAL (
        SELECT count(*) AS found, max(row.id) AS up_to, min(greatest(row.created_at, row.run_at)) AS since
        FROM (SELECT t.id, t.created_at, t.run_at FROM asynctaskd.tasks AS t
              WHERE t.status = 'pending' AND t.losses < 2 AND t.priority > 0 AND t.label_set <> '!control'
                AND t.id >= strict.first + part * strict.width
                AND t.id < strict.first + (part + 1) * strict.width
              ORDER BY t.id LIMIT cut.tasks) AS row) AS few
    WHERE strict.first IS NOT NULL
)
SELECT label_set,
       sum(CASE WHEN found < (SELECT tasks FROM cut) THEN found ELSE found * width::float8 / (up_to - start + 1) END)::bigint AS waiting,
       greatest(extract(epoch FROM asynctaskd.clock() - min(since)), 0)::float8 AS oldest
FROM looked WHERE found > 0
GROUP BY label_set
