-- Who answers for keys (rpc/moves.h): each instance of a service whose keys move says here which ring it keeps to, and up to
-- where its log has to be landed before others answer for what it gave up.
CREATE TABLE IF NOT EXISTS loquat_owner (
  instance VARCHAR(31) NOT NULL PRIMARY KEY,
  service VARCHAR(31) NOT NULL,
  turn BIGINT NOT NULL,       -- grows with each change of the row: its start's epoch, then a count
  ring BIGINT NOT NULL,       -- 0: it answers for nothing any more
  log_epoch BIGINT NOT NULL,
  lsn BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;
