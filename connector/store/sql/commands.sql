-- The columns that `SELECT *` gives are those of the table in schema.sql, in their order.
-- Where an index is named, SQLite would walk all commands of the object instead: it takes one object for few rows.

-- name: add
INSERT INTO command (
    command_id, object, operation, record_id, record_of, external_id, fields, base, base_seq, on_conflict, sender,
    reply_to, correlation, correlation_data, delivery_key, status, attempts, answer_lost, errors, conflict,
    sent, carried_by, ingest, accepted_at, expires_at, sent_at, began_at, written_at, retry_at, completed_at
) VALUES (
    :command_id, :object, :operation, :record_id, :record_of, :external_id, :fields, :base, :base_seq, :on_conflict,
    :sender, :reply_to, :correlation, :correlation_data, :delivery_key, :status, :attempts, :answer_lost, :errors,
    :conflict, :sent, :carried_by, :ingest, :accepted_at, :expires_at, :sent_at, :began_at, :written_at,
    :retry_at, :completed_at
) ON CONFLICT (command_id) DO NOTHING;

-- name: add_key
INSERT INTO command_key (seq, key, open) VALUES (:seq, :key, :open);

-- name: update
-- The record apart from the rest: SQLite writes every index anew of which a column is named, changed or not.
UPDATE command SET
    base = :base, base_seq = :base_seq, status = :status, attempts = :attempts, answer_lost = :answer_lost,
    errors = :errors, conflict = :conflict, sent = :sent, carried_by = :carried_by, ingest = :ingest,
    expires_at = :expires_at, sent_at = :sent_at, began_at = :began_at, written_at = :written_at,
    retry_at = :retry_at, completed_at = :completed_at
WHERE command_id = :command_id RETURNING
    seq, record_id IS NOT :record_id,
    EXISTS (SELECT 1 FROM command_key WHERE seq = command.seq AND open = (:status NOT IN ('accepted', 'sending')));

-- name: begin
UPDATE command SET
    status = :status, attempts = :attempts, sent = :sent, carried_by = :carried_by, ingest = :ingest,
    sent_at = :sent_at, began_at = :began_at
WHERE command_id = :command_id;

-- name: set_record
UPDATE command SET record_id = :id WHERE seq = :seq;

-- name: set_open
UPDATE command_key SET open = :open WHERE seq = :seq AND open <> :open;

-- name: spread_key
-- Whoever waits for this record under another name waits for it by its id, too.
INSERT OR IGNORE INTO command_key (seq, key, open)
SELECT waiting.seq, :id, 1
FROM command_key AS mine JOIN command_key AS waiting ON waiting.key = mine.key AND waiting.open = 1
WHERE mine.seq = :seq;

-- name: get
SELECT * FROM command WHERE command_id = ?;

-- name: next
-- A command waits for every earlier unfinished one on its record, whether that is due or not; one that has expired
-- waits for nothing.
SELECT c.* FROM command AS c
WHERE status = 'accepted' AND (
    expires_at <= :now
    OR ((retry_at IS NULL OR retry_at <= :now) AND NOT EXISTS (
        SELECT 1
        FROM command_key AS mine
        JOIN command_key AS earlier ON earlier.key = mine.key AND earlier.seq < mine.seq AND earlier.open = 1
        WHERE mine.seq = c.seq
    ))
)
ORDER BY seq LIMIT :limit;

-- name: wait_no_longer
UPDATE command SET retry_at = NULL
WHERE status = 'accepted' AND retry_at IS NOT NULL AND (retry_at > :until OR sent_at > :now);

-- name: behind
SELECT c.* FROM command_key AS k JOIN command AS c ON c.seq = k.seq
WHERE k.key = :id AND k.open = 1 AND k.seq > :seq
ORDER BY k.seq LIMIT :limit;

-- name: followed
SELECT wanted.value ->> 0 FROM json_each(:heads) AS wanted WHERE EXISTS (
    SELECT 1 FROM command_key WHERE key = wanted.value ->> 0 AND open = 1 AND seq > wanted.value ->> 1
);

-- name: first_open
SELECT min(seq) FROM command_key WHERE open = 1 AND key = ?;

-- name: record_by_key
SELECT c.record_id FROM command_key AS k JOIN command AS c ON c.seq = k.seq
WHERE k.key = :key AND c.object = :object AND c.record_id IS NOT NULL ORDER BY k.seq DESC LIMIT 1;

-- name: by_delivery
SELECT * FROM command WHERE delivery_key = :key AND accepted_at >= :since ORDER BY seq DESC LIMIT 1;

-- name: written_between
SELECT * FROM command
WHERE record_id = :id AND object = :object AND status = 'succeeded' AND seq >= :first AND seq < :before
ORDER BY seq;

-- name: overtaken_by
SELECT * FROM command
WHERE record_id = :id AND object = :object AND seq > :seq AND operation <> 'delete'
    AND (status IN ('succeeded', 'sending') OR (status = 'accepted' AND answer_lost = 1))
ORDER BY seq;

-- name: unseen
-- The org's stamps are whole seconds: a row of a later second than the write's includes it; one of the same second may
-- stem from the write before it, so what was written goes on top.
SELECT * FROM command
WHERE record_id = :id AND object = :object AND status = 'succeeded' AND change_version IS NULL
    AND completed_at >= :since AND substr(written_at, 1, 19) >= substr(:modified, 1, 19)
ORDER BY seq;

-- name: unseen_records
SELECT DISTINCT record_id FROM command INDEXED BY command_unseen
WHERE record_id IN (SELECT value FROM json_each(:ids)) AND record_id IS NOT NULL AND object = :object
    AND status = 'succeeded' AND change_version IS NULL AND completed_at >= :since;

-- name: last_written
SELECT max(written_at) FROM command
WHERE record_id = :id AND object = :object AND status = 'succeeded' AND carried_by IS NOT :besides;

-- name: pending_on
SELECT * FROM command INDEXED BY command_record
WHERE record_id IN (SELECT value FROM json_each(:ids)) AND record_id IS NOT NULL AND object = :object AND (
    status IN ('accepted', 'sending')
    OR (status = 'succeeded' AND change_version IS NULL AND completed_at >= :since)
)
ORDER BY seq;

-- name: newest
SELECT * FROM command ORDER BY seq DESC LIMIT :limit;

-- name: newest_of_status
SELECT * FROM command WHERE status = :status ORDER BY seq DESC LIMIT :limit;

-- name: open_creates
SELECT * FROM command INDEXED BY command_status
WHERE status IN ('accepted', 'sending') AND object = :object AND operation = 'create'
    AND (status = 'sending' OR answer_lost = 1)
ORDER BY seq;

-- name: claimed
SELECT record_id FROM command INDEXED BY command_record
WHERE record_id IN (SELECT value FROM json_each(:ids)) AND record_id IS NOT NULL AND object = :object
    AND operation IN ('create', 'upsert')
UNION
SELECT id FROM change_log INDEXED BY change_made
WHERE id IN (SELECT value FROM json_each(:ids)) AND object = :object AND operation = 'create'
    AND command_id IS NOT NULL;

-- name: creations_seen
SELECT command.command_id, change_log.id FROM command JOIN change_log ON change_log.version = command.change_version
WHERE command.command_id IN (SELECT value FROM json_each(:ids)) AND change_log.operation = 'create';

-- name: accepted_since
SELECT accepted_at FROM command
WHERE object = :object AND accepted_at > :since AND status <> 'rejected'
ORDER BY accepted_at DESC LIMIT 1 OFFSET :limit - 1;

-- name: deletes_since
SELECT accepted_at FROM command
WHERE object = :object AND operation = 'delete' AND accepted_at > :since AND status <> 'rejected'
ORDER BY accepted_at DESC LIMIT 1 OFFSET :limit - 1;

-- name: awaiting_echo
-- Asked by every unit that applies, mostly for nothing: SQLite makes ready to sort rows of so many columns before it has
-- found one, which takes six times as long as to find none. So who asks sorts.
-- A command carried by another one comes back with that one's change. An ingest job may be under way for long.
SELECT * FROM command INDEXED BY command_unseen
WHERE record_id IN (SELECT value FROM json_each(:ids)) AND record_id IS NOT NULL AND change_version IS NULL
    AND carried_by IS NULL AND object = :object AND (
    status = 'sending'
    OR (sent_at >= :since AND (status = 'succeeded' OR (status = 'accepted' AND answer_lost = 1)))
);

-- name: unseen_ids
SELECT record_id FROM command INDEXED BY command_unseen
WHERE change_version IS NULL AND record_id IS NOT NULL LIMIT ?;

-- name: awaiting_creation
SELECT * FROM command
WHERE record_id IS NULL AND change_version IS NULL AND object = :object
    AND (status = 'sending' OR (sent_at >= :since AND status = 'accepted' AND answer_lost = 1));

-- name: echo_seen
UPDATE command SET change_version = :version
WHERE command_id = :command_id OR (
    carried_by = :command_id AND record_id = (SELECT record_id FROM command WHERE command_id = :command_id)
);

-- name: echo_passed
-- A record shows what its commands wrote in their order: with the change of one of them, what was written before it has
-- come back as well, even if a poll saw the last state alone.
UPDATE command SET change_version = 0
WHERE change_version IS NULL AND status = 'succeeded'
    AND record_id = (SELECT record_id FROM command WHERE command_id = :command_id)
    AND object = (SELECT object FROM command WHERE command_id = :command_id)
    AND seq < (SELECT seq FROM command WHERE command_id = :command_id);

-- name: depth
SELECT count(*) FROM command WHERE status IN ('accepted', 'sending');
