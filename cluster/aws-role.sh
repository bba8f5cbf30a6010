#!/bin/bash
# Makes what cluster/ray-up-aws.yaml needs of an AWS account: a bucket, and the role `transkd` of all its machines.
#
#   bash cluster/aws-role.sh BUCKET REGION      with the credentials of who may make roles; again: changes nothing
#
# The machines may start others, give them this same role and end them, and list, read, write and delete in this bucket
# alone. Called with another bucket, the role may use both.
set -euo pipefail

if (($# != 2)); then
    echo "usage: bash cluster/aws-role.sh BUCKET REGION, such as my-bucket us-west-2" >&2
    exit 2
fi
bucket=$1
region=$2
identity=$(aws sts get-caller-identity --query Arn --output text) # arn:aws:iam::123456789012:user/me
IFS=: read -r _ partition _ _ account _ <<< "$identity"

trust='{
  "Version": "2012-10-17",
  "Statement": [
    {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
  ]
}'
# What Ray's autoscaler asks of EC2, which ends only machines with Ray's tag, and what a store in a bucket needs.
rights='{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": ["ec2:DescribeInstances", "ec2:DescribeImages", "ec2:RunInstances", "ec2:CreateTags"],
      "Resource": "*"
    },
    {
      "Effect": "Allow",
      "Action": "ec2:TerminateInstances",
      "Resource": "*",
      "Condition": {"StringLike": {"aws:ResourceTag/ray-cluster-name": "*"}}
    },
    {
      "Effect": "Allow",
      "Action": "iam:PassRole",
      "Resource": "arn:PARTITION:iam::ACCOUNT:role/transkd",
      "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    },
    {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:PARTITION:s3:::BUCKET"},
    {
      "Effect": "Allow",
      "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
      "Resource": "arn:PARTITION:s3:::BUCKET/*"
    }
  ]
}'
rights=${rights//PARTITION/$partition}
rights=${rights//ACCOUNT/$account}
rights=${rights//BUCKET/$bucket}

there() { "$@" > /dev/null 2>&1; }

there aws s3api head-bucket --bucket "$bucket" || aws s3 mb "s3://$bucket" --region "$region"
there aws iam get-role --role-name transkd ||
    aws iam create-role --role-name transkd --assume-role-policy-document "$trust" > /dev/null
aws iam put-role-policy --role-name transkd --policy-name "transkd-$bucket" --policy-document "$rights"
there aws iam get-instance-profile --instance-profile-name transkd ||
    aws iam create-instance-profile --instance-profile-name transkd > /dev/null
held=$(aws iam get-instance-profile --instance-profile-name transkd \
    --query 'InstanceProfile.Roles[].RoleName' --output text)
[[ $held == transkd ]] || aws iam add-role-to-instance-profile --instance-profile-name transkd --role-name transkd
# EC2 needs a role of its own for spot machines, which the account's first request makes where it has the right to.
spot=$(aws iam list-roles --path-prefix /aws-service-role/spot.amazonaws.com/ --query 'Roles[].RoleName' --output text)
[[ -n $spot ]] || aws iam create-service-linked-role --aws-service-name spot.amazonaws.com > /dev/null
echo "bucket $bucket and role transkd are there; AWS may take a minute until machines get the role"
