/* A small device on MQTT 3.1.1: how many leads are open, now and after every change of a lead.
 *
 * MQTT 3.1.1 has no Response Topic: where the answer goes stands in the payload, as `reply_to`, and what it answers as
 * `correlation`. On an ESP32 the same is done with esp-mqtt and cJSON, which ESP-IDF brings; here with libmosquitto:
 *
 *     apt-get install gcc libmosquitto-dev libcjson-dev
 *     cc -Wall -Wextra -o device device.c -lmosquitto -lcjson
 *     ./device HOST PORT
 *
 * A device's rules: a client id of its own, bounded buffers, and no state that it cannot ask for again.
 */
#include <cjson/cJSON.h>
#include <mosquitto.h>
#include <stdio.h>
#include <stdlib.h>

#define ROOT "blackroad/salesforce"
#define INBOX ROOT "/reply/lead-lamp"
#define QUESTION "{\"where\": {\"Status\": \"Open - Not Contacted\"}, \"reply_to\": \"" INBOX "\", \"correlation\": \"open\"}"

static void ask(struct mosquitto *client)
{
    mosquitto_publish(client, NULL, ROOT "/query/Lead/count", sizeof QUESTION - 1, QUESTION, 1, false);
}

static void on_connect(struct mosquitto *client, void *data, int code)
{
    (void)data;
    if (code != 0) {
        fprintf(stderr, "refused: %s\n", mosquitto_connack_string(code));
        return; /* it is tried again */
    }
    mosquitto_subscribe(client, NULL, INBOX, 1);
    mosquitto_subscribe(client, NULL, ROOT "/change/Lead/#", 1);
    mosquitto_subscribe(client, NULL, ROOT "/status", 1);
    ask(client);
}

/* What the lamp shows; the answer is small, however many leads there are. */
static void show(const cJSON *reply)
{
    const cJSON *count = cJSON_GetObjectItemCaseSensitive(reply, "count");
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(reply, "error");
    if (cJSON_IsNumber(count))
        printf("open leads: %d\n", count->valueint);
    else if (cJSON_IsObject(error))
        printf("no answer: %s\n", cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(error, "code")));
    fflush(stdout);
}

static void on_message(struct mosquitto *client, void *data, const struct mosquitto_message *message)
{
    bool change = false;
    (void)data;
    mosquitto_topic_matches_sub(ROOT "/change/Lead/#", message->topic, &change);
    if (change) {
        ask(client); /* the change need not be read: the question is cheap */
        return;
    }
    cJSON *document = cJSON_ParseWithLength(message->payload, (size_t)message->payloadlen);
    const char *state = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, "state"));
    if (state != NULL)
        printf("connector: %s\n", state);
    else if (document != NULL)
        show(document);
    fflush(stdout);
    cJSON_Delete(document);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: device HOST PORT\n");
        return 2;
    }
    mosquitto_lib_init();
    struct mosquitto *client = mosquitto_new("lead-lamp", true, NULL);
    mosquitto_int_option(client, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V311);
    mosquitto_connect_callback_set(client, on_connect);
    mosquitto_message_callback_set(client, on_message);
    mosquitto_reconnect_delay_set(client, 1, 30, true);
    int error = mosquitto_connect(client, argv[1], atoi(argv[2]), 30);
    if (error == MOSQ_ERR_SUCCESS)
        error = mosquitto_loop_forever(client, -1, 1);
    fprintf(stderr, "%s\n", mosquitto_strerror(error));
    return 1;
}
