-- name: changes
UPDATE change SET version = version + :shift WHERE version > :published;

-- name: messages
UPDATE outbox SET after_version = after_version + :shift WHERE after_version >= :published;

-- name: commands
UPDATE command SET change_version = change_version + :shift WHERE change_version > :published;
