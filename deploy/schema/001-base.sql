-- The tables of the reference game and of the replay. Names and uids are compared byte by byte.
-- A migration may be cut off in its middle and run again, for each of its statements commits by itself: IF NOT EXISTS.

-- Where the replay of each log stands; changed in the same transaction as the rows it replays.
CREATE TABLE IF NOT EXISTS loquat_replay (
  instance VARCHAR(31) NOT NULL PRIMARY KEY,
  epoch BIGINT NOT NULL,
  lsn BIGINT NOT NULL,
  file VARCHAR(64) NOT NULL DEFAULT '',
  time_us BIGINT NOT NULL DEFAULT 0
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS role (
  id BIGINT NOT NULL PRIMARY KEY,
  uid VARCHAR(64) NOT NULL,
  name VARCHAR(80) NOT NULL,
  level INT NOT NULL DEFAULT 1,
  exp BIGINT NOT NULL DEFAULT 0,
  gold BIGINT NOT NULL DEFAULT 0,
  gems BIGINT NOT NULL DEFAULT 0,
  scene INT NOT NULL DEFAULT 1,
  x DOUBLE NOT NULL DEFAULT 0,
  y DOUBLE NOT NULL DEFAULT 0,
  UNIQUE KEY role_uid (uid),
  KEY role_by_name (name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- Names are unique here: claimed by their owner before a role is written.
CREATE TABLE IF NOT EXISTS role_name (
  name VARCHAR(80) NOT NULL PRIMARY KEY,
  uid VARCHAR(64) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS bag (
  role_id BIGINT NOT NULL,
  item INT NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (role_id, item)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS quest (
  role_id BIGINT NOT NULL,
  quest INT NOT NULL,
  state VARCHAR(16) NOT NULL,
  progress INT NOT NULL DEFAULT 0,
  PRIMARY KEY (role_id, quest)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- Answers of orders, payments and once-calls, written in the same record as their effect.
CREATE TABLE IF NOT EXISTS once_done (
  owner VARCHAR(80) NOT NULL,
  once_key VARCHAR(260) NOT NULL,
  fingerprint VARCHAR(160) NOT NULL,
  answer TEXT NOT NULL,
  created_us BIGINT NOT NULL,
  PRIMARY KEY (owner, once_key)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;
