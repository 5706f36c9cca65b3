-- name: superseded
-- The event that a record already waits with, where another takes its place.
SELECT quarantine_id FROM dirty
WHERE object = :object AND id = :id AND quarantine_id IS NOT NULL AND quarantine_id <> :quarantine_id;

-- name: mark_dirty
-- A new mark must be newer than the old one even if the clock was set back, or clearing the old would clear it.
INSERT INTO dirty (object, id, reason, since_ms, quarantine_id)
VALUES (:object, :id, :reason, :since_ms, :quarantine_id)
ON CONFLICT (object, id) DO UPDATE SET
    since_ms = max(since_ms + 1, excluded.since_ms),
    quarantine_id = coalesce(excluded.quarantine_id, quarantine_id);

-- name: dirty
SELECT object, id, reason, since_ms, quarantine_id FROM dirty WHERE object = :object ORDER BY seq LIMIT :limit;

-- name: clear_dirty
DELETE FROM dirty WHERE object = ? AND id = ? AND since_ms <= ?;

-- name: dirty_depth
SELECT count(*) FROM dirty;

-- name: quarantine
INSERT INTO quarantine (object, replay_id, error, event, quarantined_at) VALUES (?, ?, ?, ?, ?) RETURNING id;

-- name: bound_quarantine
-- Settled events go first, then the oldest.
DELETE FROM quarantine WHERE id IN (
    SELECT id FROM quarantine WHERE id <> :keep ORDER BY settled_at IS NULL, id
    LIMIT max(0, (SELECT count(*) FROM quarantine) - :max)
);

-- name: settle
UPDATE quarantine SET settled_at = ? WHERE id = ? AND settled_at IS NULL;

-- name: nameless
SELECT id FROM quarantine AS q
WHERE settled_at IS NULL AND object IS ? AND NOT EXISTS (SELECT 1 FROM dirty WHERE quarantine_id = q.id)
ORDER BY id;

-- name: quarantine_depth
SELECT count(*) FROM quarantine WHERE settled_at IS NULL;

-- name: open_hole
INSERT INTO hole (object, "from", reason, opened_at) VALUES (:object, :from, :reason, :at)
ON CONFLICT (object) WHERE closed_at IS NULL DO UPDATE SET "from" = min("from", excluded."from"), "to" = NULL
RETURNING id, object, "from", "to", reason, opened_at, closed_at, corrected;

-- name: close_hole
UPDATE hole SET "to" = :to, closed_at = :at, corrected = :corrected WHERE id = :id AND closed_at IS NULL;

-- name: hole
SELECT id, object, "from", "to", reason, opened_at, closed_at, corrected FROM hole WHERE id = ?;

-- name: open_holes
SELECT id, object, "from", "to", reason, opened_at, closed_at, corrected
FROM hole WHERE closed_at IS NULL AND (:object IS NULL OR object = :object) ORDER BY id;
