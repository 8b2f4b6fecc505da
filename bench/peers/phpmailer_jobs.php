<?php
// PHPMailer with SMTPKeepAlive and phpredis: a process a connection, since PHP has neither threads
// nor an event loop. Each pops ten jobs in one round trip, composes and sends; the parent adds up.
// FOLDER PORT CONNECTIONS REDIS_PORT.
declare(strict_types=1);

use PHPMailer\PHPMailer\PHPMailer;

[, $folder, $port, $connections, $redisPort] = $argv;
foreach (['Exception', 'PHPMailer', 'SMTP'] as $name) {
    require "$folder/$name.php";
}
pcntl_async_signals(true);

function letter(int $port): PHPMailer
{
    $mailer = new PHPMailer(true);
    $mailer->isSMTP();
    $mailer->Host = '127.0.0.1';
    $mailer->Port = $port;
    $mailer->SMTPAutoTLS = false;
    $mailer->SMTPKeepAlive = true;
    // It writes a line at a time: with Nagle's algorithm each mail waits 40 ms, 440 a second in all.
    $mailer->SMTPOptions = ['socket' => ['tcp_nodelay' => true]];
    $mailer->Hostname = 'bench.example.com';
    $mailer->XMailer = ' ';
    $mailer->CharSet = PHPMailer::CHARSET_UTF8;
    $mailer->setFrom('bench@example.com');
    return $mailer;
}

function deliver(int $port, int $redisPort): int
{
    $isOver = false;
    pcntl_signal(SIGTERM, function () use (&$isOver) { $isOver = true; });
    $redis = new Redis();
    $redis->connect('127.0.0.1', $redisPort);
    $mailer = letter($port);
    for ($sent = 0; !$isOver;) {
        foreach ($redis->rawCommand('RPOP', 'bench:mails', '10') ?: [] as $payload) {
            $job = json_decode($payload, true);
            $mailer->clearAddresses();
            foreach ($job['to'] as $address => $name) {
                $mailer->addAddress($address, $name);
            }
            $mailer->Subject = $job['subject'];
            $mailer->Body = $job['body'];
            $mailer->send();
            $sent += 1;
        }
    }
    $mailer->smtpClose();
    return $sent;
}

$children = $pipes = [];
for ($number = 0; $number < (int) $connections; $number++) {
    [$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    $child = pcntl_fork();
    if ($child === 0) {
        fwrite($theirs, (string) deliver((int) $port, (int) $redisPort));
        exit(0);
    }
    fclose($theirs);
    $children[] = $child;
    $pipes[] = $ours;
}
pcntl_signal(SIGTERM, function () use ($children) {
    foreach ($children as $child) {
        posix_kill($child, SIGTERM);
    }
}, false);
$all = 0;
foreach ($children as $number => $child) {
    while (pcntl_waitpid($child, $status) === -1 && pcntl_get_last_error() === PCNTL_EINTR);
    if ($status !== 0) {
        fwrite(STDERR, "a process ended with status $status\n");
        exit(1);
    }
    $all += (int) stream_get_contents($pipes[$number]);
}
echo json_encode(['all' => $all]), "\n";
