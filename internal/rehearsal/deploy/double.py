"""The local double of AWS: moto, with a strict CloudFormation.

moto models the resources of a service well, but its CloudFormation is lax. It skips types that it
doesn't know, drops properties, follows the template's order instead of DependsOn, waits for no
custom resource, and reports a change set as complete whose execution failed. With it, a deploy
would succeed whatever the template says. So this program runs moto's services unchanged and
replaces the execution of change sets:

 - It creates resources one after the other, each after everything that it refers to or depends on.
 - It creates some types through the service's own API over HTTP (see KINDS): those that moto's
   CloudFormation doesn't know, or whose properties it loses. It records a property that the API
   doesn't accept in LOST, and a type that moto's CloudFormation would skip in ADDED.
 - It skips what neither knows, and records it in SKIPPED. A reference to it resolves to nothing.
 - It sends a custom resource's request to --invoke, because moto runs no functions, and waits for
   the answer at the response URL. A FAILED answer, or none in time, fails the stack.
 - It sends a call of Lambda's Invoke to --invoke too, as /invocations?function=ARN or with
   NAME:VERSION, and answers what comes back. A queue's event source mapping invokes nothing: its
   messages stay.
 - An update changes each resource whose resolved properties differ, creates what is new, and
   removes what is gone unless it is retained. It never replaces a resource: one that can't be
   changed fails the stack. A rollback also removes what the failed update created, including
   resources that are retained otherwise (RetainExceptOnCreate).
 - A failure fails the stack, with its reason in the stack's events, and rolls it back: a new stack
   loses its resources, an existing one gets its previous template.
 - A change set belongs to its stack and is executed in the background, as on AWS.

/notes serves the records as JSON. This program depends on moto's internals, so requirements.txt
pins moto's version.
"""

import argparse
import copy
import json
import re
import secrets
import threading
import urllib.parse
import urllib.request

import boto3
from moto.awslambda import models as awslambda
from moto.cloudformation import models as cloudformation
from moto.cloudformation import parsing, responses
from moto.cloudformation.exceptions import CloudFormationError
from moto.core.responses import ActionResult, EmptyResult
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.wrappers import Request, Response

# How long a custom resource may take, in seconds. The test waits less for the function, so that its
# reason for a failure arrives.
ANSWER_LIMIT = 180

SKIPPED, LOST, ADDED = {}, {}, {}
NOTES = {"skipped": SKIPPED, "lost": LOST, "added": ADDED}
options = None


def client(service):
    """Returns an AWS client for this double."""
    return boto3.client(
        service,
        endpoint_url=f"http://localhost:{options.port}",
        region_name=options.region,
        aws_access_key_id="double",
        aws_secret_access_key="double",
    )


class Resource:
    """The attributes that moto expects of a stack's resource."""

    physical_resource_id = None

    @classmethod
    def has_cfn_attr(cls, name):
        return True

    def is_created(self):
        return True


# --- Resources that are created through their service's API.
#
# Each row has a type's service and the calls that create, update and delete it. The other fields:
#   ref         the physical id: a name in the properties or in the answer
#   keys        the parameters that identify the resource in an update or a deletion
#   named       the property for which CloudFormation generates a value if the template has none
#   attributes  attributes of GetAtt that the answer has under another name
#   arn         the resource part of an ARN that the answer doesn't have
#   folded      the properties beside those that the API wants in its parameter Attributes
#   renamed     the properties that have another name in the API
KINDS = {
    "AWS::Lambda::Function": dict(
        service="lambda",
        create="create_function",
        update=("update_function_code", "update_function_configuration"),
        delete="delete_function",
        ref="FunctionName",
        keys=("FunctionName",),
        named="FunctionName",
        attributes={"Arn": "FunctionArn"},
    ),
    "AWS::Lambda::Version": dict(
        service="lambda",
        create="publish_version",
        delete="delete_function",
        ref="FunctionArn",
        keys=("FunctionName", ("Qualifier", "Version")),
    ),
    "AWS::Lambda::Alias": dict(
        service="lambda",
        create="create_alias",
        update=("update_alias",),
        delete="delete_alias",
        ref="AliasArn",
        keys=("FunctionName", "Name"),
    ),
    "AWS::Lambda::Permission": dict(
        service="lambda",
        create="add_permission",
        delete="remove_permission",
        ref="StatementId",
        keys=("FunctionName", "StatementId", "Qualifier"),
        named="StatementId",
    ),
    "AWS::Lambda::EventInvokeConfig": dict(
        service="lambda",
        create="put_function_event_invoke_config",
        update=("put_function_event_invoke_config",),
        delete="delete_function_event_invoke_config",
        ref="FunctionArn",
        keys=("FunctionName", "Qualifier"),
    ),
    "AWS::ApiGatewayV2::Api": dict(
        service="apigatewayv2",
        create="create_api",
        update=("update_api",),
        delete="delete_api",
        ref="ApiId",
        keys=("ApiId",),
    ),
    "AWS::ApiGatewayV2::Stage": dict(
        service="apigatewayv2",
        create="create_stage",
        delete="delete_stage",
        ref="StageName",
        keys=("ApiId", "StageName"),
    ),
    "AWS::ApiGatewayV2::Integration": dict(
        service="apigatewayv2",
        create="create_integration",
        update=("update_integration",),
        delete="delete_integration",
        ref="IntegrationId",
        keys=("ApiId", "IntegrationId"),
    ),
    "AWS::ApiGatewayV2::Route": dict(
        service="apigatewayv2",
        create="create_route",
        update=("update_route",),
        delete="delete_route",
        ref="RouteId",
        keys=("ApiId", "RouteId"),
    ),
    "AWS::ApiGatewayV2::Authorizer": dict(
        service="apigatewayv2",
        create="create_authorizer",
        update=("update_authorizer",),
        delete="delete_authorizer",
        ref="AuthorizerId",
        keys=("ApiId", "AuthorizerId"),
    ),
    "AWS::CloudWatch::Alarm": dict(
        service="cloudwatch",
        create="put_metric_alarm",
        update=("put_metric_alarm",),
        delete="delete_alarms",
        ref="AlarmName",
        keys=(("AlarmNames", "AlarmName", list),),
        named="AlarmName",
        arn="alarm",
    ),
    "AWS::Logs::MetricFilter": dict(
        service="logs",
        create="put_metric_filter",
        update=("put_metric_filter",),
        delete="delete_metric_filter",
        ref="FilterName",
        keys=("LogGroupName", "FilterName"),
        named="FilterName",
    ),
    "AWS::Events::EventBus": dict(
        service="events",
        create="create_event_bus",
        delete="delete_event_bus",
        ref="Name",
        keys=("Name",),
        attributes={"Arn": "EventBusArn"},
    ),
    "AWS::Events::Archive": dict(
        service="events",
        create="create_archive",
        delete="delete_archive",
        ref="ArchiveName",
        keys=("ArchiveName",),
        renamed={"SourceArn": "EventSourceArn"},
    ),
    "AWS::SNS::Subscription": dict(
        service="sns",
        create="subscribe",
        delete="unsubscribe",
        ref="SubscriptionArn",
        keys=("SubscriptionArn",),
        folded=("TopicArn", "Protocol", "Endpoint"),
    ),
}


def fitted(value, shape, path, lost):
    """Converts a value of CloudFormation to the shape of an API parameter.

    The names of the members differ only in case. Appends the path of each member that the API
    doesn't accept to lost.
    """
    if shape.type_name == "structure":
        members = {name.lower(): (name, member) for name, member in shape.members.items()}
        out = {}
        for key, item in value.items():
            if item is None:
                continue
            name, member = members.get(key.lower(), (None, None))
            if member is None:
                lost.append(f"{path}{key}")
            else:
                out[name] = fitted(item, member, f"{path}{key}.", lost)
        return out
    if shape.type_name == "list":
        items = value if isinstance(value, list) else [value]
        return [fitted(item, shape.member, path, lost) for item in items]
    if shape.type_name == "map":
        if isinstance(value, list):  # CloudFormation's tags
            value = {tag["Key"]: tag["Value"] for tag in value}
        return {
            key: fitted(item, shape.value, f"{path}{key}.", lost) for key, item in value.items()
        }
    if shape.type_name in ("integer", "long"):
        return int(value)
    if shape.type_name in ("double", "float"):
        return float(value)
    if shape.type_name == "boolean":
        return value if isinstance(value, bool) else str(value).lower() == "true"
    return value if isinstance(value, str) else json.dumps(value)


def call(service, operation, values):
    """Calls the API. Returns its answer, and the properties that it doesn't accept."""
    api = client(service)
    model = api.meta.service_model.operation_model(api.meta.method_to_api_mapping[operation])
    lost = []
    return getattr(api, operation)(**fitted(values, model.input_shape, "", lost)), lost


def unfold(kind, values):
    """Moves the members of Code beside the function's others, where the update call wants them."""
    if kind == "AWS::Lambda::Function":
        return {**values, **values.get("Code", {})}
    return values


def fold(row, values):
    """Renames properties, and moves those that aren't parameters of their own into Attributes."""
    renamed = row.get("renamed", {})
    values = {renamed.get(name, name): value for name, value in values.items()}
    if "folded" not in row:
        return values
    out = {name: value for name, value in values.items() if name in row["folded"]}
    out["Attributes"] = {name: value for name, value in values.items() if name not in out}
    return out


class Made(Resource):
    """A resource that was created through its service's API."""

    def __init__(self, kind, properties, answer):
        self.kind, self.properties, self.answer = kind, properties, answer
        self.row = KINDS[kind]

    @property
    def physical_resource_id(self):
        return self.known(self.row["ref"])

    def known(self, name):
        return {**self.answer, **self.properties}.get(name)

    def get_cfn_attribute(self, name):
        value = self.known(self.row.get("attributes", {}).get(name, name))
        if value is None and name == "Arn" and "arn" in self.row:
            place = f"{self.row['service']}:{options.region}:{options.account}"
            value = f"arn:aws:{place}:{self.row['arn']}:{self.physical_resource_id}"
        if value is None:
            raise KeyError(f"the double doesn't know the attribute {name} of {self.kind}")
        return value

    @classmethod
    def create(cls, logical, stack, kind, properties):
        row = KINDS[kind]
        if row.get("named"):
            properties.setdefault(row["named"], f"{stack}-{logical}-{secrets.token_hex(4)}")
        answer, lost = call(row["service"], row["create"], fold(row, properties))
        for name in lost:
            LOST.setdefault(f"{kind} {name}", []).append(logical)
        return cls(kind, properties, answer)

    def identity(self):
        out = {}
        for key in self.row["keys"]:
            name, source, wrap = (*key, str)[:3] if isinstance(key, tuple) else (key, key, str)
            value = self.known(source)
            if value is not None:
                out[name] = [value] if wrap is list else value
        return out

    def update(self, properties):
        if not self.row.get("update"):
            raise NotImplementedError(f"the double can't update a {self.kind}")
        name = self.row.get("named")
        if name in self.properties:
            properties = {name: self.properties[name], **properties}
        values = unfold(self.kind, {**properties, **self.identity()})
        for operation in self.row["update"]:
            call(self.row["service"], operation, values)
        self.properties = properties

    def remove(self):
        call(self.row["service"], self.row["delete"], self.identity())


class Policy(Resource):
    """A resource policy of topics or queues. The API has it as an attribute of each."""

    OF = {"AWS::SNS::TopicPolicy": "Topics", "AWS::SQS::QueuePolicy": "Queues"}

    def __init__(self, logical, kind, properties):
        self.physical_resource_id, self.kind = logical, kind
        self.update(properties)

    def update(self, properties):
        document = json.dumps(properties["PolicyDocument"])
        for each in properties[self.OF[self.kind]]:
            if self.kind == "AWS::SNS::TopicPolicy":
                client("sns").set_topic_attributes(
                    TopicArn=each, AttributeName="Policy", AttributeValue=document
                )
            else:
                client("sqs").set_queue_attributes(QueueUrl=each, Attributes={"Policy": document})

    def remove(self):
        """Does nothing: the policy is removed with its topic or queue."""


def texts(value):
    """Converts all scalars to text, as CloudFormation does in a custom resource's request."""
    if isinstance(value, dict):
        return {key: texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [texts(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


class Custom(Resource):
    """A custom resource. Its function gets a request and answers at the response URL."""

    waiting = {}  # the open requests by their ids

    def __init__(self, stack_id, logical, kind, properties):
        self.stack_id, self.logical, self.kind = stack_id, logical, kind
        self.properties = properties
        self.physical_resource_id, self.data = None, {}
        self.request("Create", properties)

    def get_cfn_attribute(self, name):
        return self.data[name]

    def update(self, properties):
        self.request("Update", properties, OldResourceProperties=texts(self.properties))
        self.properties = properties

    def remove(self):
        self.request("Delete", self.properties)

    def request(self, kind, properties, **more):
        properties = texts(properties)
        request_id = secrets.token_hex(16)
        answered = self.waiting[request_id] = {"came": threading.Event()}
        event = {
            "RequestType": kind,
            "ServiceToken": properties["ServiceToken"],
            "StackId": self.stack_id,
            "RequestId": request_id,
            "ResponseURL": f"http://localhost:{options.port}/answers/{request_id}",
            "LogicalResourceId": self.logical,
            "ResourceType": self.kind,
            "ResourceProperties": properties,
            **more,
        }
        if self.physical_resource_id:
            event["PhysicalResourceId"] = self.physical_resource_id
        body = json.dumps(event).encode()
        # This host needs no proxy, whatever the environment says.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        headers = {"Content-Type": "application/json"}
        opener.open(urllib.request.Request(options.invoke, body, headers), timeout=10).close()
        if not answered["came"].wait(ANSWER_LIMIT):
            raise TimeoutError(
                f"custom resource {self.logical} didn't answer within {ANSWER_LIMIT} s"
            )
        answer = self.waiting.pop(request_id)["answer"]
        if answer.get("Status") != "SUCCESS":
            raise RuntimeError(
                f"Received response status [{answer.get('Status')}] from custom resource. "
                f"Message returned: {answer.get('Reason')}"
            )
        self.physical_resource_id = answer["PhysicalResourceId"]
        self.data = answer.get("Data") or {}


# --- The execution of a change set.


def references(value):
    """Yields the logical ids that a part of a template refers to."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "Ref":
                yield item
            elif key == "Fn::GetAtt":
                yield item[0] if isinstance(item, list) else item.split(".")[0]
            elif key == "Fn::Sub":
                text, *names = item if isinstance(item, list) else (item,)
                yield from (name.split(".")[0] for name in re.findall(r"\${([^!}]+)}", text))
                yield from references(names)
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def ordered(resources):
    """Returns the logical ids in the template's order, but each after all that it needs."""
    done, out = set(), []

    def visit(name):
        if name in done or name not in resources:
            return
        done.add(name)
        needs = resources[name].get("DependsOn", [])
        for need in [needs] if isinstance(needs, str) else needs:
            visit(need)
        for need in references(resources[name].get("Properties", {})):
            visit(need)
        out.append(name)

    for name in resources:
        visit(name)
    return out


class Execution:
    """The execution of a change set on a stack, or its rollback."""

    def __init__(self, stack, template, parameters, undo=False):
        self.stack, self.template, self.map = stack, template, stack.resource_map
        self.retaining = ("Retain",) if undo else ("Retain", "RetainExceptOnCreate")
        self.resources = template.get("Resources", {})
        self.before = self.map._resource_json_map
        if not hasattr(self.map, "resolved"):
            self.map.resolved = {}
        self.map._template, self.map._resource_json_map = template, self.resources
        # A parameter without a value keeps its previous one.
        given = {name: value for name, value in parameters.items() if value}
        self.map.input_parameters = {**self.map.input_parameters, **given}
        if self.resources:
            self.map.load_mapping()
            self.map.load_parameters()
            self.map.load_conditions()

    def note(self, name, kind, status, reason=None):
        resource = self.map._parsed_resources.get(name)
        event = cloudformation.Event(
            stack_id=self.stack.stack_id,
            stack_name=self.stack.name,
            logical_resource_id=name,
            physical_resource_id=getattr(resource, "physical_resource_id", "") or "",
            resource_type=kind,
            resource_status=status,
            resource_status_reason=reason,
            resource_properties=None,
        )
        self.stack.events.append(event)

    def run(self):
        for name in ordered(self.resources):
            self.step(name, self.resources[name])
        gone = {name: json_ for name, json_ in self.before.items() if name not in self.resources}
        for name in reversed(ordered(gone)):
            self.remove(name, gone[name])

    def step(self, name, resource):
        kind = resource["Type"]
        condition = resource.get("Condition")
        if condition and not self.map.lazy_condition_map[condition]:
            return
        exists = self.map._parsed_resources.get(name) is not None
        verb = "UPDATE" if exists else "CREATE"
        try:
            raw = copy.deepcopy(resource.get("Properties", {}))
            properties = parsing.clean_json(raw, self.map)
            if exists and properties == self.map.resolved.get(name):
                return
            if not self.known(kind):
                SKIPPED.setdefault(kind, []).append(name)
                return
            self.note(name, kind, f"{verb}_IN_PROGRESS")
            apply = self.change if exists else self.create
            made = apply(name, resource, properties)
            made.cf_resource_type, made.type, made.logical_resource_id = kind, kind, name
            self.map._parsed_resources[name] = made
            self.map.resolved[name] = properties
        except Exception as e:
            # A rollback must set the properties again, as CloudFormation does.
            self.map.resolved[name] = None
            self.note(name, kind, f"{verb}_FAILED", f"{type(e).__name__}: {e}")
            raise RuntimeError(f"{name}: {type(e).__name__}: {e}") from e
        self.note(name, kind, f"{verb}_COMPLETE")

    @staticmethod
    def custom(kind):
        return kind.startswith("Custom::") or kind == "AWS::CloudFormation::CustomResource"

    def known(self, kind):
        ours = kind in KINDS or kind in Policy.OF or self.custom(kind)
        return ours or kind in parsing.get_model_map()

    def create(self, name, resource, properties):
        kind, properties = resource["Type"], copy.deepcopy(properties)
        if kind not in parsing.get_model_map() and not self.custom(kind):
            ADDED.setdefault(kind, []).append(name)
        if kind in KINDS:
            return Made.create(name, self.stack.name, kind, properties)
        if kind in Policy.OF:
            return Policy(name, kind, properties)
        if self.custom(kind):
            return Custom(self.stack.stack_id, name, kind, properties)
        return parsing.parse_and_create_resource(name, copy.deepcopy(resource), *self.context())

    def context(self):
        """Returns the last arguments of moto's own functions."""
        return self.map, self.stack.account_id, self.stack.region_name

    def change(self, name, resource, properties):
        made = self.map._parsed_resources[name]
        if isinstance(made, (Made, Policy, Custom)):
            made.update(copy.deepcopy(properties))
            return made
        changed = parsing.parse_and_update_resource(
            name, copy.deepcopy(resource), *self.context()
        )
        if changed is None:
            raise NotImplementedError(f"the double can't update a {resource['Type']}")
        return changed

    def remove(self, name, resource):
        made = self.map._parsed_resources.pop(name, None)
        self.map.resolved.pop(name, None)
        if made is None or resource.get("DeletionPolicy") in self.retaining:
            return
        self.note(name, resource["Type"], "DELETE_IN_PROGRESS")
        if isinstance(made, (Made, Policy, Custom)):
            made.remove()
        else:
            self.map._delete_resource(made, resource)
        self.note(name, resource["Type"], "DELETE_COMPLETE")


class ChangeSetNotFound(CloudFormationError):
    code = "ChangeSetNotFound"


def change_set_of(response):
    """Returns the change set of a call.

    The command line gives the change sets of different stacks the same name, so the stack counts.
    """
    name, stack_name = response._get_param("ChangeSetName"), response._get_param("StackName")
    for change_set in response.cloudformation_backend.change_sets.values():
        of_stack = stack_name in (change_set.stack_name, change_set.stack_id)
        if name == change_set.change_set_id or name == change_set.change_set_name and of_stack:
            return change_set
    raise ChangeSetNotFound(f"ChangeSet [{name}] does not exist")


def describe_change_set(self):
    return ActionResult(change_set_of(self))


def delete_change_set(self):
    try:
        del self.cloudformation_backend.change_sets[change_set_of(self).change_set_id]
    except ChangeSetNotFound:
        pass  # AWS reports no error either
    return EmptyResult()


def execute_change_set(self):
    """Starts the execution and returns at once, as AWS does."""
    change_set = change_set_of(self)
    stack = self.cloudformation_backend.stacks[change_set.stack_id]
    kind = change_set.change_set_type
    change_set.execution_status = "EXECUTE_IN_PROGRESS"
    stack.status = f"{kind}_IN_PROGRESS"
    stack._add_stack_event(f"{kind}_IN_PROGRESS", resource_status_reason="User Initiated")

    before = stack.template_dict if kind == "UPDATE" else {"Resources": {}}

    def settle(status, reason=None):
        stack._add_stack_event(status, resource_status_reason=reason)
        stack.status = status

    def run():
        try:
            Execution(stack, change_set.template_dict, change_set.parameters).run()
            stack.template, stack.template_dict = change_set.template, change_set.template_dict
            stack.output_map = stack._create_output_map()
            change_set.execution_status = "EXECUTE_COMPLETE"
            settle(f"{kind}_COMPLETE")
        except Exception as e:
            change_set.execution_status = "EXECUTE_FAILED"
            roll_back(str(e))

    def roll_back(reason):
        name = "ROLLBACK" if kind == "CREATE" else "UPDATE_ROLLBACK"
        settle(f"{name}_IN_PROGRESS", reason)
        try:
            Execution(stack, before, {}, undo=True).run()
            settle(f"{name}_COMPLETE")
        except Exception as e:
            settle(f"{name}_FAILED", str(e))

    threading.Thread(target=run, daemon=True).start()
    return EmptyResult()


def delete(self):
    """Replaces moto's Stack.delete, which ignores the order of dependencies."""
    self._add_stack_event("DELETE_IN_PROGRESS", resource_status_reason="User Initiated")
    self.status = "DELETE_IN_PROGRESS"
    rest = self.template_dict if isinstance(self.template_dict, dict) else {}
    template = {**rest, "Resources": {}}
    try:
        Execution(self, template, {}).run()
    except Exception as e:
        self.status = "DELETE_FAILED"
        self._add_stack_event(self.status, resource_status_reason=str(e))
        raise
    self.status = "DELETE_COMPLETE"
    self._add_stack_event(self.status)
    # Delete its change sets too, because another stack may get its name.
    backend = cloudformation.cloudformation_backends[self.account_id][self.region_name]
    for change_set in list(backend.change_sets.values()):
        if change_set.stack_id == self.stack_id:
            del backend.change_sets[change_set.change_set_id]


def stack_parameters(self):
    """Returns the parameters as given.

    moto returns their resolved values: for a parameter from the parameter store, the stored value
    instead of its name.
    """
    slots = self.resource_map._template.get("Parameters", {})
    defaults = {name: slot["Default"] for name, slot in slots.items() if "Default" in slot}
    return {**defaults, **self.resource_map.input_parameters}


def function_configuration(original):
    """Adds the logging configuration, which moto drops, to a function's configuration."""

    def get_configuration(self, *args, **kwargs):
        config = original(self, *args, **kwargs)
        if getattr(self, "logging_config", None):
            config["LoggingConfig"] = self.logging_config
        return config

    return get_configuration


def function_init(original):
    def __init__(self, account_id, spec, *args, **kwargs):
        original(self, account_id, spec, *args, **kwargs)
        self.logging_config = spec.get("LoggingConfig")

    return __init__


def update_function_code(original):
    """Copies the function's record of its code first: moto shares the record with old versions."""

    def update(self, spec):
        self.code = dict(self.code)
        return original(self, spec)

    return update


def patch_moto():
    for replacement in (describe_change_set, delete_change_set, execute_change_set):
        setattr(responses.CloudFormationResponse, replacement.__name__, replacement)
    cloudformation.Stack.delete = delete
    cloudformation.Stack.stack_parameters = property(stack_parameters)
    function = awslambda.LambdaFunction
    function.get_configuration = function_configuration(function.get_configuration)
    function.update_function_code = update_function_code(function.update_function_code)
    function.__init__ = function_init(function.__init__)
    awslambda.LambdaBackend.send_sqs_batch = lambda *_: False  # the messages stay


# The path of a call of Lambda's Invoke.
INVOKE = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")


def invoke(function, event):
    """Lets the test run a function. Returns the answer as Lambda gives it."""
    url = f"{options.invoke}/invocations?function={urllib.parse.quote(function)}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, event), timeout=ANSWER_LIMIT) as answer:
        error = answer.headers.get("X-Amz-Function-Error")
        headers = {"X-Amz-Function-Error": error} if error else {}
        return Response(answer.read(), headers=headers, mimetype="application/json")


class Front:
    """Serves the notes and the answers of custom resources in front of moto's services.

    The command line searches CloudTrail for the reason of a failed deploy. moto can't search it, so
    the answer is empty.
    """

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        request = Request(environ)
        if request.path == "/notes":
            response = Response(json.dumps(NOTES), mimetype="application/json")
            return response(environ, start_response)
        if request.headers.get("X-Amz-Target", "").endswith(".LookupEvents"):
            response = Response('{"Events": []}', mimetype="application/x-amz-json-1.1")
            return response(environ, start_response)
        invoked = INVOKE.fullmatch(request.path)
        if invoked:
            version = request.args.get("Qualifier")
            function = invoked.group(1) + (f":{version}" if version else "")
            response = invoke(function, request.get_data())
            return response(environ, start_response)
        if request.path.startswith("/answers/"):
            waiting = Custom.waiting.get(request.path.rsplit("/", 1)[1])
            if waiting is None or request.method != "PUT":
                response = Response("no custom resource waits for this answer", status=403)
                return response(environ, start_response)
            waiting["answer"] = json.loads(request.get_data())
            waiting["came"].set()
            return Response("")(environ, start_response)
        return self.app(environ, start_response)


def main():
    global options
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--account", required=True)
    parser.add_argument(
        "--invoke", required=True, help="the URL to which invocations are sent"
    )
    options = parser.parse_args()
    patch_moto()
    services = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", options.port, Front(services), threaded=True)


if __name__ == "__main__":
    main()
