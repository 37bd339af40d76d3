# The way in: port 5432, from the groups of the workers and of nobody else. The server itself calls nowhere.

resource "aws_security_group" "this" {
  name        = "${var.name}-records"
  description = "PostgreSQL of GME Foundry"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = var.client_group_ids

  description                  = "PostgreSQL for ${each.key}"
  security_group_id            = aws_security_group.this.id
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}
