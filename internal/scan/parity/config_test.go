package parity

// Configuration with mistakes that the built-in checks know.

var configFiles = map[string]map[string]string{
	"dockerfile": {
		"Dockerfile":         "FROM debian:latest\nADD https://example.com/x.tar /x\nRUN apt-get update\nRUN sudo true\nEXPOSE 22\nENV PASSWORD_X=1\nCMD [\"sh\"]\n",
		"build/Dockerfile.b": "FROM scratch\nCOPY x /x\nUSER root\nHEALTHCHECK CMD true\nMAINTAINER somebody\n",
		"good/Containerfile": "FROM debian:12.11\nRUN useradd -r app\nUSER app\nHEALTHCHECK CMD true\nCMD [\"sh\"]\n",
	},
	"kubernetes": {
		"deployment.yaml": `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      hostNetwork: true
      containers:
      - name: web
        image: nginx:latest
        securityContext:
          privileged: true
          runAsUser: 0
        volumeMounts:
        - {name: sock, mountPath: /var/run/docker.sock}
      volumes:
      - name: sock
        hostPath: {path: /var/run/docker.sock}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {externalIPs: [192.0.2.1], ports: [{port: 80}]}
`,
		"role.json":  `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"all"},"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]}`,
		"plain.yaml": "this: is\nno: resource\n",
	},
	"terraform": {
		"main.tf": `variable "acl" { default = "public-read" }
resource "aws_s3_bucket" "data" {
  bucket = "data"
  acl    = var.acl
}
resource "aws_security_group" "open" {
  name = "open"
  ingress {
    from_port   = 22
    to_port     = 22
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }
}
module "inner" {
  source = "./inner"
  size   = 10
}
`,
		"inner/main.tf": "variable \"size\" {}\nresource \"aws_ebs_volume\" \"disk\" {\n  availability_zone = \"a\"\n  size = var.size\n  encrypted = false\n}\n",
		"other/main.tf": "resource \"google_storage_bucket\" \"b\" {\n  name = \"b\"\n  location = \"EU\"\n  #trivy:ignore:*\n  uniform_bucket_level_access = false\n}\nresource \"azurerm_storage_account\" \"s\" {\n  name = \"s\"\n  min_tls_version = \"TLS1_0\"\n}\n",
	},
	"terraform-plan": {
		"plan.json": `{"format_version":"1.1","terraform_version":"1.3.0","planned_values":{"root_module":{"resources":[{"address":"aws_s3_bucket.b","mode":"managed","type":"aws_s3_bucket","name":"b","provider_name":"registry.example.com/hashicorp/aws","schema_version":0,"values":{"bucket":"b","force_destroy":false},"sensitive_values":{}}]}},
"resource_changes":[{"address":"aws_s3_bucket.b","mode":"managed","type":"aws_s3_bucket","name":"b","change":{"actions":["create"],"before":null,"after":{"bucket":"b","force_destroy":false}}}],
"configuration":{"root_module":{"resources":[{"address":"aws_s3_bucket.b","mode":"managed","type":"aws_s3_bucket","name":"b","expressions":{"bucket":{"constant_value":"b"}},"schema_version":0}]}}}`,
	},
	"cloudformation": {
		"stack.yaml": `AWSTemplateFormatVersion: "2010-09-09"
Parameters:
  Name: {Type: String, Default: data}
Resources:
  Bucket:
    Type: AWS::S3::Bucket
    Properties:
      BucketName: !Sub "${Name}-bucket"
      AccessControl: PublicRead
  Group:
    Type: AWS::EC2::SecurityGroup
    Properties:
      GroupDescription: open
      SecurityGroupIngress:
      - {IpProtocol: tcp, FromPort: 22, ToPort: 22, CidrIp: 0.0.0.0/0}
`,
		"stack.json": `{"AWSTemplateFormatVersion":"2010-09-09","Resources":{"Queue":{"Type":"AWS::SQS::Queue","Properties":{"QueueName":"q"}}}}`,
	},
	"azure-arm": {
		"deploy.json": `{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0","parameters":{},
"resources":[{"type":"Microsoft.Storage/storageAccounts","apiVersion":"2022-09-01","name":"s","location":"westeurope","kind":"StorageV2","sku":{"name":"Standard_LRS"},
"properties":{"supportsHttpsTrafficOnly":false,"minimumTlsVersion":"TLS1_0","networkAcls":{"defaultAction":"Allow"}}}]}`,
	},
	"helm": {
		"chart/Chart.yaml":             "apiVersion: v2\nname: web\nversion: 0.1.0\n",
		"chart/values.yaml":            "image: nginx\ntag: latest\nprivileged: true\n",
		"chart/templates/pod.yaml":     "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}-web\nspec:\n  containers:\n  - name: web\n    image: \"{{ .Values.image }}:{{ .Values.tag }}\"\n    securityContext:\n      privileged: {{ .Values.privileged }}\n",
		"chart/templates/_helpers.tpl": "{{- define \"x\" -}}x{{- end -}}\n",
		"chart/templates/tests/t.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: t}\n",
	},
	"ansible": {
		"playbook.yaml":          "- hosts: all\n  tasks:\n  - name: bucket\n    amazon.aws.s3_bucket:\n      name: data\n      public_access: {}\n",
		"ansible.cfg":            "[defaults]\ninventory = hosts\n",
		"hosts":                  "[all]\nlocalhost\n",
		"roles/r/tasks/main.yml": "- name: bucket\n  amazon.aws.s3_bucket:\n    name: other\n",
	},
	// Trivy 0.72 has no checks for it: neither side may find anything.
	"compose": {"docker-compose.yml": "services:\n  web:\n    image: nginx:latest\n    privileged: true\n"},
	"mixed": {
		"Dockerfile":        "FROM scratch\n",
		"k8s/pod.yaml":      "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: x, securityContext: {privileged: true}}]}\n",
		"package-lock.json": packageLock2,
	},
}

// malformedConfig has files that no parser can read. Trivy says nothing of them.
var malformedConfig = map[string]string{
	"Dockerfile":               "FROM scratch\nRUN [\"unfinished\n\x00FORM x\n",
	"broken.yaml":              "apiVersion: v1\nkind: Pod\nmetadata: {name: [\n",
	"main.tf":                  "resource \"aws_s3_bucket\" {\n  bucket = \n",
	"stack.json":               `{"AWSTemplateFormatVersion":"2010-09-09","Resources":{`,
	"chart/Chart.yaml":         "apiVersion: v2\nname: web\nversion: 0.1.0\n",
	"chart/templates/pod.yaml": "apiVersion: v1\nkind: {{ if }}\n",
}
