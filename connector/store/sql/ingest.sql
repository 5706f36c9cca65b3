-- name: fullest
-- What one ingest job could carry most of: commands that were never tried and may be written whatever the record holds.
SELECT object, operation, json_extract(external_id, '$.field') AS field FROM command
WHERE status = 'accepted' AND attempts = 0 AND answer_lost = 0
    AND (operation IN ('create', 'upsert') OR on_conflict = 'overwrite')
GROUP BY object, operation, field HAVING count(*) >= :least ORDER BY count(*) DESC LIMIT 1;

-- name: next_of
SELECT c.* FROM command AS c
WHERE status = 'accepted' AND attempts = 0 AND answer_lost = 0
    AND (operation IN ('create', 'upsert') OR on_conflict = 'overwrite')
    AND object = :object AND operation = :operation AND json_extract(external_id, '$.field') IS :field
    AND seq > :after AND (expires_at IS NULL OR expires_at > :now)
    AND NOT EXISTS (
        SELECT 1
        FROM command_key AS mine
        JOIN command_key AS earlier ON earlier.key = mine.key AND earlier.seq < mine.seq AND earlier.open = 1
        WHERE mine.seq = c.seq
    )
ORDER BY seq LIMIT :limit;

-- name: add
INSERT INTO ingest_job (object, operation, external_id) VALUES (:object, :operation, :external_id) RETURNING number;

-- name: made
UPDATE ingest_job SET job_id = :job_id, opened_at = :opened_at WHERE number = :number;

-- name: all
SELECT number, object, operation, external_id, job_id, opened_at FROM ingest_job ORDER BY number;

-- name: carried
SELECT * FROM command WHERE ingest = :number AND seq > :after ORDER BY seq LIMIT :limit;

-- name: remove
DELETE FROM ingest_job WHERE number = :number;

-- name: interrupted
SELECT * FROM command WHERE status = 'sending' AND ingest IS NULL ORDER BY seq LIMIT :limit;
