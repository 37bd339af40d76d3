# Wrong on purpose: open to the world, in plain text, gone with one command.

resource "aws_db_parameter_group" "plain" {
  name   = "plain"
  family = "postgres17"

  parameter {
    name  = "rds.force_ssl"
    value = "0"
  }
}

resource "aws_db_instance" "open" {
  engine                  = "postgres"
  username                = "administrator"
  password                = "correct-horse"
  storage_encrypted       = false
  publicly_accessible     = true
  parameter_group_name    = aws_db_parameter_group.plain.name
  backup_retention_period = 1
  deletion_protection     = false
  skip_final_snapshot     = true
}

resource "aws_vpc_security_group_ingress_rule" "world" {
  security_group_id = "sg-1"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 5432
  to_port           = 5432
}

resource "aws_security_group" "world" {
  name = "world"

  ingress {
    cidr_blocks = ["0.0.0.0/0"]
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
  }
}
