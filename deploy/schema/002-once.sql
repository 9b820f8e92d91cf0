-- Answers of once-calls, written in the same record as their effect (rpc/app_once.c): a row per key, for ever, or until
-- the client has acknowledged it where the key is its sequence. once_done is written by logs from before, no more.
CREATE TABLE IF NOT EXISTS loquat_once (
  owner VARCHAR(96) NOT NULL,
  client VARCHAR(64) NOT NULL DEFAULT '',
  method VARCHAR(128) NOT NULL,
  once_key VARCHAR(256) NOT NULL,
  seq BIGINT NOT NULL DEFAULT 0,
  hash BIGINT NOT NULL,
  fingerprint BIGINT NOT NULL,
  json TINYINT NOT NULL,
  answer MEDIUMBLOB NOT NULL,
  created_us BIGINT NOT NULL,
  PRIMARY KEY (owner, client, method, once_key)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;
