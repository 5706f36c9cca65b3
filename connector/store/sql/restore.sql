-- name: changes
UPDATE change_log SET version = version + :shift WHERE version > :published;

-- name: blocks
DELETE FROM change_block WHERE 64 * block > :published;
INSERT OR IGNORE INTO change_block (object, block)
SELECT DISTINCT object, version / 64 FROM change_log WHERE version > :published + :shift;

-- name: messages
UPDATE outbox SET after_version = after_version + :shift WHERE after_version >= :published;

-- name: commands
UPDATE command SET change_version = change_version + :shift WHERE change_version > :published;
