region           = "eu-central-1"
owner            = "example"
vpc_id           = "vpc-0123456789abcdef0"
subnet_ids       = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
client_group_ids = { workers = "sg-0123456789abcdef0" }

workers = {
  synthesize = ["arn:aws:iam::123456789012:role/workers-cpu"]
  train      = ["arn:aws:iam::123456789012:role/workers-gpu"]
  evaluate   = ["arn:aws:iam::123456789012:role/workers-gpu"]
  registrar  = ["arn:aws:iam::123456789012:role/workers-registrar"]
}
