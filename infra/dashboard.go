package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/jsii-runtime-go"
)

// dashboardColumns is the width of a CloudWatch dashboard.
const dashboardColumns = 24

// graph is one graph of the dashboard.
type graph struct {
	title   string
	metrics []awscloudwatch.IMetric
}

func newGraph(title string, metrics ...awscloudwatch.IMetric) graph {
	return graph{title, metrics}
}

// addRow puts graphs beside each other on the dashboard, all of the same width.
func (m *monitoring) addRow(graphs ...graph) {
	var widgets []awscloudwatch.IWidget
	for _, g := range graphs {
		widgets = append(widgets, awscloudwatch.NewGraphWidget(&awscloudwatch.GraphWidgetProps{
			Title: jsii.String(g.title),
			Left:  &g.metrics,
			Width: jsii.Number(dashboardColumns / len(graphs)),
		}))
	}
	m.rows = append(m.rows, widgets)
}

// newDashboard creates the dashboard: the alarms first, then the rows in the order of their adding.
func (m *monitoring) newDashboard() {
	board := awscloudwatch.NewDashboard(m.scope, jsii.String("Dashboard"),
		&awscloudwatch.DashboardProps{DashboardName: jsii.String(m.settings.StackName())})
	board.AddWidgets(awscloudwatch.NewAlarmStatusWidget(&awscloudwatch.AlarmStatusWidgetProps{
		Title:  jsii.String("Alarms"),
		Alarms: &m.alarms,
		Width:  jsii.Number(dashboardColumns),
		Height: jsii.Number(3),
	}))
	for _, row := range m.rows {
		board.AddWidgets(row...)
	}
}
