"""The local AWS double: moto, with CloudFormation made strict.

moto keeps a service's resources well, and provisions a stack from them loosely: it passes over the types that it doesn't know, drops
properties, follows the template's order where DependsOn says another, waits for no custom resource, and calls a change set complete whose
execution failed. A deploy would be green on it whatever the template says. So this program runs moto's services as they are, and replaces
what executes a change set:

 - Resources are made one after the other, each after all that it refers to or depends on, as CloudFormation does at the latest.
 - What moto's CloudFormation doesn't know, or of which it loses properties, is made through the service's own API (see KINDS), called
   over HTTP as CloudFormation would call it; a property that the call doesn't take is noted in LOST, and a type that
   moto's own CloudFormation would pass over in ADDED.
 - What neither knows isn't made: it is noted in SKIPPED. A resource that refers to it gets nothing in its place.
 - A custom resource is announced to the one who runs the functions, at --invoke, since moto runs none. Nothing is made until the answer has
   come to the response URL; a FAILED one, or none in time, fails the stack.
 - An update changes what resolves to other properties than before, makes what is new, and removes what is gone unless it is to be retained.
   It replaces nothing: a resource that can't be changed fails the stack. Going back removes what the failed update had made, also
   what is to be retained but then (RetainExceptOnCreate).
 - A failure fails the stack, with its reason in the stack's events, and is rolled back: a new stack loses what it has, an old one gets its
   previous template.
 - A change set belongs to its stack, and is executed in the background, as AWS does both.

The notes are served as JSON at /notes. It stands on moto's insides, so its version is pinned in requirements.txt.
"""

import argparse
import copy
import json
import re
import secrets
import threading
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

# How long a custom resource may take, in seconds: longer than who runs it waits for the function, so that its own reason is told.
ANSWER_LIMIT = 180

SKIPPED, LOST, ADDED = {}, {}, {}
NOTES = {"skipped": SKIPPED, "lost": LOST, "added": ADDED}
options = None


def client(service):
    """A client of this very double."""
    endpoint = f"http://localhost:{options.port}"
    return boto3.client(service, endpoint_url=endpoint, region_name=options.region, aws_access_key_id="double", aws_secret_access_key="double")


class Resource:
    """What moto asks of a resource of a stack."""

    physical_resource_id = None

    @classmethod
    def has_cfn_attr(cls, name):
        return True

    def is_created(self):
        return True


# --- Resources that are made through their service's API. Each row is a type, the service, and the calls that create, change and delete it.
# Ref is the physical id: a name or a path in the answer. Keys name what a change and a deletion are for. Named is what CloudFormation makes
# up a value of when the template has none. Attributes are GetAtt's that aren't in the answer under their own names, and arn is how an ARN
# begins that isn't in it at all.
KINDS = {
    "AWS::Lambda::Function": dict(
        service="lambda", create="create_function", update=("update_function_code", "update_function_configuration"), delete="delete_function",
        ref="FunctionName", keys=("FunctionName",), named="FunctionName", attributes={"Arn": "FunctionArn"}),
    "AWS::Lambda::Version": dict(
        service="lambda", create="publish_version", delete="delete_function", ref="FunctionArn", keys=("FunctionName", ("Qualifier", "Version"))),
    "AWS::Lambda::Alias": dict(
        service="lambda", create="create_alias", update=("update_alias",), delete="delete_alias", ref="AliasArn", keys=("FunctionName", "Name")),
    "AWS::Lambda::Permission": dict(
        service="lambda", create="add_permission", delete="remove_permission", ref="StatementId", keys=("FunctionName", "StatementId", "Qualifier"),
        named="StatementId"),
    "AWS::Lambda::EventInvokeConfig": dict(
        service="lambda", create="put_function_event_invoke_config", update=("put_function_event_invoke_config",),
        delete="delete_function_event_invoke_config", ref="FunctionArn", keys=("FunctionName", "Qualifier")),
    "AWS::ApiGatewayV2::Api": dict(
        service="apigatewayv2", create="create_api", update=("update_api",), delete="delete_api", ref="ApiId", keys=("ApiId",)),
    "AWS::ApiGatewayV2::Stage": dict(
        service="apigatewayv2", create="create_stage", delete="delete_stage", ref="StageName", keys=("ApiId", "StageName")),
    "AWS::ApiGatewayV2::Integration": dict(
        service="apigatewayv2", create="create_integration", update=("update_integration",), delete="delete_integration",
        ref="IntegrationId", keys=("ApiId", "IntegrationId")),
    "AWS::ApiGatewayV2::Route": dict(
        service="apigatewayv2", create="create_route", update=("update_route",), delete="delete_route", ref="RouteId", keys=("ApiId", "RouteId")),
    "AWS::ApiGatewayV2::Authorizer": dict(
        service="apigatewayv2", create="create_authorizer", update=("update_authorizer",), delete="delete_authorizer",
        ref="AuthorizerId", keys=("ApiId", "AuthorizerId")),
    "AWS::CloudWatch::Alarm": dict(
        service="cloudwatch", create="put_metric_alarm", update=("put_metric_alarm",), delete="delete_alarms", ref="AlarmName",
        keys=(("AlarmNames", "AlarmName", list),), named="AlarmName", arn="alarm"),
    "AWS::SNS::Subscription": dict(
        service="sns", create="subscribe", delete="unsubscribe", ref="SubscriptionArn", keys=("SubscriptionArn",)),
}


def fitted(value, shape, path, lost):
    """The value as a call takes it, whose members are named as CloudFormation's but for case. What it doesn't take goes to lost."""
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
        return [fitted(item, shape.member, path, lost) for item in (value if isinstance(value, list) else [value])]
    if shape.type_name == "map":
        if isinstance(value, list):  # CloudFormation's tags
            value = {tag["Key"]: tag["Value"] for tag in value}
        return {key: fitted(item, shape.value, f"{path}{key}.", lost) for key, item in value.items()}
    if shape.type_name in ("integer", "long"):
        return int(value)
    if shape.type_name in ("double", "float"):
        return float(value)
    if shape.type_name == "boolean":
        return value if isinstance(value, bool) else str(value).lower() == "true"
    return value if isinstance(value, str) else json.dumps(value)


def call(service, operation, values):
    """Makes a call of the API, and returns its answer and what it couldn't be told."""
    api = client(service)
    model = api.meta.service_model.operation_model(api.meta.method_to_api_mapping[operation])
    lost = []
    return getattr(api, operation)(**fitted(values, model.input_shape, "", lost)), lost


def unfold(kind, values):
    """Code's members stand beside the function's own in the call that changes it."""
    return {**values, **values.get("Code", {})} if kind == "AWS::Lambda::Function" else values


class Made(Resource):
    """A resource that was made through its service's API."""

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
            value = f"arn:aws:{self.row['service']}:{options.region}:{options.account}:{self.row['arn']}:{self.physical_resource_id}"
        if value is None:
            raise KeyError(f"the double knows no attribute {name} of {self.kind}")
        return value

    @classmethod
    def create(cls, logical, stack, kind, properties):
        row = KINDS[kind]
        if row.get("named"):
            properties.setdefault(row["named"], f"{stack}-{logical}-{secrets.token_hex(4)}")
        answer, lost = call(row["service"], row["create"], properties)
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
            raise NotImplementedError(f"the double can't change a {self.kind}")
        properties = {**{key: self.properties[key] for key in (self.row.get("named"),) if key in self.properties}, **properties}
        for operation in self.row["update"]:
            call(self.row["service"], operation, unfold(self.kind, {**properties, **self.identity()}))
        self.properties = properties

    def remove(self):
        call(self.row["service"], self.row["delete"], self.identity())


class Policy(Resource):
    """A resource policy of topics or queues, which is an attribute of each."""

    OF = {"AWS::SNS::TopicPolicy": "Topics", "AWS::SQS::QueuePolicy": "Queues"}

    def __init__(self, logical, kind, properties):
        self.physical_resource_id, self.kind = logical, kind
        self.update(properties)

    def update(self, properties):
        document = json.dumps(properties["PolicyDocument"])
        for each in properties[self.OF[self.kind]]:
            if self.kind == "AWS::SNS::TopicPolicy":
                client("sns").set_topic_attributes(TopicArn=each, AttributeName="Policy", AttributeValue=document)
            else:
                client("sqs").set_queue_attributes(QueueUrl=each, Attributes={"Policy": document})

    def remove(self):
        """It goes with what it is a policy of."""


def texts(value):
    """A custom resource's properties, as CloudFormation sends them: all scalars are text."""
    if isinstance(value, dict):
        return {key: texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [texts(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


class Custom(Resource):
    """A custom resource: its function is told, and what it answers to the response URL decides."""

    waiting = {}  # the requests that are under way, by their ids

    def __init__(self, stack_id, logical, kind, properties):
        self.stack_id, self.logical, self.kind, self.properties = stack_id, logical, kind, properties
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
            "RequestType": kind, "ServiceToken": properties["ServiceToken"], "StackId": self.stack_id, "RequestId": request_id,
            "ResponseURL": f"http://localhost:{options.port}/answers/{request_id}", "LogicalResourceId": self.logical,
            "ResourceType": self.kind, "ResourceProperties": properties, **more,
        }
        if self.physical_resource_id:
            event["PhysicalResourceId"] = self.physical_resource_id
        body = json.dumps(event).encode()
        # A proxy of the environment's is for other hosts than this.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(urllib.request.Request(options.invoke, body, {"Content-Type": "application/json"}), timeout=10).close()
        if not answered["came"].wait(ANSWER_LIMIT):
            raise TimeoutError(f"custom resource {self.logical} didn't answer within {ANSWER_LIMIT} s")
        answer = self.waiting.pop(request_id)["answer"]
        if answer.get("Status") != "SUCCESS":
            said = answer.get("Reason")
            raise RuntimeError(f"Received response status [{answer.get('Status')}] from custom resource. Message returned: {said}")
        self.physical_resource_id = answer["PhysicalResourceId"]
        self.data = answer.get("Data") or {}


# --- The execution of a change set.


def references(value):
    """The logical ids that a piece of a template refers to."""
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
    """The logical ids, each after all that it needs, and otherwise as late as the template has them."""
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
    """One change set being executed on a stack, or undone."""

    def __init__(self, stack, template, parameters, undo=False):
        self.stack, self.template, self.map = stack, template, stack.resource_map
        self.retaining = ("Retain",) if undo else ("Retain", "RetainExceptOnCreate")
        self.resources = template.get("Resources", {})
        self.before = self.map._resource_json_map
        if not hasattr(self.map, "resolved"):
            self.map.resolved = {}
        self.map._template, self.map._resource_json_map = template, self.resources
        # A parameter without a value keeps its previous one.
        self.map.input_parameters = {**self.map.input_parameters, **{name: value for name, value in parameters.items() if value}}
        if self.resources:
            self.map.load_mapping()
            self.map.load_parameters()
            self.map.load_conditions()

    def note(self, name, kind, status, reason=None):
        resource = self.map._parsed_resources.get(name)
        self.stack.events.append(cloudformation.Event(
            stack_id=self.stack.stack_id, stack_name=self.stack.name, logical_resource_id=name,
            physical_resource_id=getattr(resource, "physical_resource_id", "") or "", resource_type=kind, resource_status=status,
            resource_status_reason=reason, resource_properties=None))

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
            properties = parsing.clean_json(copy.deepcopy(resource.get("Properties", {})), self.map)
            if exists and properties == self.map.resolved.get(name):
                return
            if not self.known(kind):
                SKIPPED.setdefault(kind, []).append(name)
                return
            self.note(name, kind, f"{verb}_IN_PROGRESS")
            made = self.change(name, resource, properties) if exists else self.create(name, resource, properties)
            made.cf_resource_type, made.type, made.logical_resource_id = kind, kind, name
            self.map._parsed_resources[name] = made
            self.map.resolved[name] = properties
        except Exception as e:
            self.map.resolved[name] = None  # so that going back sets it again, as CloudFormation does
            self.note(name, kind, f"{verb}_FAILED", f"{type(e).__name__}: {e}")
            raise RuntimeError(f"{name}: {type(e).__name__}: {e}") from e
        self.note(name, kind, f"{verb}_COMPLETE")

    @staticmethod
    def custom(kind):
        return kind.startswith("Custom::") or kind == "AWS::CloudFormation::CustomResource"

    def known(self, kind):
        return kind in KINDS or kind in Policy.OF or self.custom(kind) or kind in parsing.get_model_map()

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
        return parsing.parse_and_create_resource(name, copy.deepcopy(resource), self.map, self.stack.account_id, self.stack.region_name)

    def change(self, name, resource, properties):
        made = self.map._parsed_resources[name]
        if isinstance(made, (Made, Policy, Custom)):
            made.update(copy.deepcopy(properties))
            return made
        changed = parsing.parse_and_update_resource(name, copy.deepcopy(resource), self.map, self.stack.account_id, self.stack.region_name)
        if changed is None:
            raise NotImplementedError(f"the double can't change a {resource['Type']}")
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
    """The change set that a call is about. Two stacks may have one of the same name each, as the command line's deploys have."""
    name, stack_name = response._get_param("ChangeSetName"), response._get_param("StackName")
    for change_set in response.cloudformation_backend.change_sets.values():
        if name == change_set.change_set_id or name == change_set.change_set_name and stack_name in (change_set.stack_name, change_set.stack_id):
            return change_set
    raise ChangeSetNotFound(f"ChangeSet [{name}] does not exist")


def describe_change_set(self):
    return ActionResult(change_set_of(self))


def delete_change_set(self):
    try:
        del self.cloudformation_backend.change_sets[change_set_of(self).change_set_id]
    except ChangeSetNotFound:
        pass  # AWS says nothing either
    return EmptyResult()


def execute_change_set(self):
    """Returns at once, as AWS does: the caller reads the stack's status."""
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
    """Stands for moto's Stack.delete, which follows no order."""
    self._add_stack_event("DELETE_IN_PROGRESS", resource_status_reason="User Initiated")
    self.status = "DELETE_IN_PROGRESS"
    template = {**self.template_dict, "Resources": {}} if isinstance(self.template_dict, dict) else {"Resources": {}}
    try:
        Execution(self, template, {}).run()
    except Exception as e:
        self.status = "DELETE_FAILED"
        self._add_stack_event(self.status, resource_status_reason=str(e))
        raise
    self.status = "DELETE_COMPLETE"
    self._add_stack_event(self.status)
    # Its change sets go with it: another stack may have its name.
    change_sets = cloudformation.cloudformation_backends[self.account_id][self.region_name].change_sets
    for change_set_id in [key for key, change_set in change_sets.items() if change_set.stack_id == self.stack_id]:
        del change_sets[change_set_id]


def stack_parameters(self):
    """The parameters as they were given. Moto has what they resolve to, which for one of the parameter store isn't its name."""
    defaults = {name: slot["Default"] for name, slot in self.resource_map._template.get("Parameters", {}).items() if "Default" in slot}
    return {**defaults, **self.resource_map.input_parameters}


def function_configuration(original):
    """Adds to a function's configuration what moto takes from nobody: how it logs."""

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
    """Gives the function a note of its own of where its code is: moto changes the one that its versions have too."""

    def update(self, spec):
        self.code = dict(self.code)
        return original(self, spec)

    return update


def mend():
    for replacement in (describe_change_set, delete_change_set, execute_change_set):
        setattr(responses.CloudFormationResponse, replacement.__name__, replacement)
    cloudformation.Stack.delete = delete
    cloudformation.Stack.stack_parameters = property(stack_parameters)
    awslambda.LambdaFunction.get_configuration = function_configuration(awslambda.LambdaFunction.get_configuration)
    awslambda.LambdaFunction.update_function_code = update_function_code(awslambda.LambdaFunction.update_function_code)
    awslambda.LambdaFunction.__init__ = function_init(awslambda.LambdaFunction.__init__)


class Front:
    """What the double serves beside moto's services: the notes, the answers of custom resources, and CloudTrail's, which
    the command line asks why a deploy failed: moto can't search it, and so it has nothing to say."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        request = Request(environ)
        if request.path == "/notes":
            return Response(json.dumps(NOTES), mimetype="application/json")(environ, start_response)
        if request.headers.get("X-Amz-Target", "").endswith(".LookupEvents"):
            return Response('{"Events": []}', mimetype="application/x-amz-json-1.1")(environ, start_response)
        if request.path.startswith("/answers/"):
            waiting = Custom.waiting.get(request.path.rsplit("/", 1)[1])
            if waiting is None or request.method != "PUT":
                return Response("nobody waits for this answer", status=403)(environ, start_response)
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
    parser.add_argument("--invoke", required=True, help="where a custom resource's request is sent, as the one who runs its function")
    options = parser.parse_args()
    mend()
    run_simple("127.0.0.1", options.port, Front(DomainDispatcherApplication(create_backend_app)), threaded=True)


if __name__ == "__main__":
    main()
