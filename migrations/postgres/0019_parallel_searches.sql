-- A statement that calls functions which are not marked as safe is not executed by parallel processes.
-- Searches call these.
ALTER FUNCTION cut_runs(text) PARALLEL SAFE;
ALTER FUNCTION searched_text(text) PARALLEL SAFE;
