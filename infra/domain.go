package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscertificatemanager"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsroute53"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsroute53targets"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// newDomain creates the API's custom domain name and its DNS record, for a certificate and a hosted
// zone that exist already.
func newDomain(scope constructs.Construct, d Domain) awsapigatewayv2.DomainName {
	domain := awsapigatewayv2.NewDomainName(scope, jsii.String("Domain"),
		&awsapigatewayv2.DomainNameProps{
			DomainName: jsii.String(d.Name),
			Certificate: awscertificatemanager.Certificate_FromCertificateArn(
				scope, jsii.String("Certificate"), jsii.String(d.CertificateARN)),
			SecurityPolicy: awsapigatewayv2.SecurityPolicy_TLS_1_2,
		})
	zone := awsroute53.HostedZone_FromHostedZoneAttributes(scope, jsii.String("Zone"),
		&awsroute53.HostedZoneAttributes{
			HostedZoneId: jsii.String(d.ZoneID), ZoneName: jsii.String(d.ZoneName),
		})
	awsroute53.NewARecord(scope, jsii.String("Record"), &awsroute53.ARecordProps{
		Zone:       zone,
		RecordName: jsii.String(d.Name),
		Target: awsroute53.RecordTarget_FromAlias(awsroute53targets.NewApiGatewayv2DomainProperties(
			domain.RegionalDomainName(), domain.RegionalHostedZoneId())),
	})
	return domain
}
