-- name: add
INSERT INTO command (
    command_id, object, operation, record_key, record_id, external_id, fields, base, on_conflict, sender, reply_to,
    correlation, correlation_data, delivery_key, status, attempts, answer_lost, errors, conflict,
    accepted_at, expires_at, sent_at, retry_at, completed_at
) VALUES (
    :command_id, :object, :operation, :record_key, :record_id, :external_id, :fields, :base, :on_conflict, :sender,
    :reply_to, :correlation, :correlation_data, :delivery_key, :status, :attempts, :answer_lost, :errors, :conflict,
    :accepted_at, :expires_at, :sent_at, :retry_at, :completed_at
) ON CONFLICT (command_id) DO NOTHING;

-- name: update
UPDATE command SET
    record_id = :record_id, status = :status, attempts = :attempts, answer_lost = :answer_lost,
    errors = :errors, conflict = :conflict, sent_at = :sent_at, retry_at = :retry_at, completed_at = :completed_at
WHERE command_id = :command_id;

-- name: get
SELECT seq, command_id, object, operation, record_id, external_id, fields, base, on_conflict, sender, reply_to,
    correlation, correlation_data, delivery_key, status, attempts, answer_lost, errors, conflict,
    accepted_at, expires_at, sent_at, retry_at, completed_at
FROM command WHERE command_id = ?;

-- name: next
-- A command waits for every earlier unfinished one on its record, whether that is due or not.
SELECT seq, command_id, object, operation, record_id, external_id, fields, base, on_conflict, sender, reply_to,
    correlation, correlation_data, delivery_key, status, attempts, answer_lost, errors, conflict,
    accepted_at, expires_at, sent_at, retry_at, completed_at
FROM command AS c
WHERE status = 'accepted' AND (retry_at IS NULL OR retry_at <= :now) AND NOT EXISTS (
    SELECT 1 FROM command AS earlier
    WHERE earlier.record_key = c.record_key AND earlier.seq < c.seq AND earlier.status IN ('accepted', 'sending')
)
ORDER BY seq LIMIT :limit;

-- name: by_delivery
SELECT seq, command_id, object, operation, record_id, external_id, fields, base, on_conflict, sender, reply_to,
    correlation, correlation_data, delivery_key, status, attempts, answer_lost, errors, conflict,
    accepted_at, expires_at, sent_at, retry_at, completed_at
FROM command WHERE delivery_key = :key AND accepted_at >= :since ORDER BY seq DESC LIMIT 1;

-- name: pending
SELECT seq, command_id, object, operation, record_id, external_id, fields, base, on_conflict, sender, reply_to,
    correlation, correlation_data, delivery_key, status, attempts, answer_lost, errors, conflict,
    accepted_at, expires_at, sent_at, retry_at, completed_at
FROM command
WHERE record_id = :id AND object = :object AND (
    status IN ('accepted', 'sending')
    OR (status = 'succeeded' AND change_version IS NULL AND completed_at >= :since)
)
ORDER BY seq;

-- name: newest
SELECT seq, command_id, object, operation, record_id, external_id, fields, base, on_conflict, sender, reply_to,
    correlation, correlation_data, delivery_key, status, attempts, answer_lost, errors, conflict,
    accepted_at, expires_at, sent_at, retry_at, completed_at
FROM command ORDER BY seq DESC LIMIT :limit;

-- name: newest_of_status
SELECT seq, command_id, object, operation, record_id, external_id, fields, base, on_conflict, sender, reply_to,
    correlation, correlation_data, delivery_key, status, attempts, answer_lost, errors, conflict,
    accepted_at, expires_at, sent_at, retry_at, completed_at
FROM command WHERE status = :status ORDER BY seq DESC LIMIT :limit;

-- name: awaiting_echo
SELECT seq, command_id, object, operation, record_id, external_id, fields, base, on_conflict, sender, reply_to,
    correlation, correlation_data, delivery_key, status, attempts, answer_lost, errors, conflict,
    accepted_at, expires_at, sent_at, retry_at, completed_at
FROM command
WHERE change_version IS NULL AND status IN ('sending', 'succeeded') AND object = :object AND sent_at >= :since
ORDER BY seq;

-- name: echo_seen
UPDATE command SET change_version = ? WHERE command_id = ?;

-- name: depth
SELECT count(*) FROM command WHERE status IN ('accepted', 'sending');
