<?php
// The bytes and the calls of a swoole_client: php swoole.php PORT JSON…
// connect, send each without any delimiter, close; nothing is read.
[, $port] = $argv;
$client = stream_socket_client("tcp://127.0.0.1:$port", $code, $text, 5);
foreach (array_slice($argv, 2) as $json) {
    fwrite($client, $json);
}
fclose($client);
