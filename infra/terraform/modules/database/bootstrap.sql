-- Run once by the administrator: psql "host=HOST dbname=mlflow user=administrator sslmode=verify-full" -f bootstrap.sql
-- Both users come in by IAM (tokens of 15 minutes), so neither has a password that could leak.
CREATE ROLE mlflow LOGIN;
CREATE ROLE prefect LOGIN;
GRANT rds_iam TO mlflow, prefect;
GRANT mlflow, prefect TO CURRENT_USER;
CREATE DATABASE prefect OWNER prefect;
ALTER DATABASE mlflow OWNER TO mlflow;
REVOKE ALL ON DATABASE mlflow, prefect FROM PUBLIC;
