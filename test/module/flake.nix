# Hosts for templates/hosts.nix, as flakes have them: no inputs, and whatever isn't to be read throws.
{
  outputs =
    { self }:
    let
      package =
        name: system:
        derivation {
          inherit name system;
          builder = "/bin/sh";
          args = [
            "-c"
            "echo ${name} >$out"
          ];
        };
      here = "x86_64-linux";
      unread = throw "this must not be evaluated";
      pass = system: "${package "pass-1.7.4" system}/bin/pass";

      upstream = system: {
        deployment = {
          deploy-method = "copy";
          group = "default";
          ssh = {
            host = "192.0.2.2";
            opts = [
              "-l"
              "root"
            ];
            user = "root";
            login = unread;
            run = unread;
          };
        };
        secrets = {
          default-cmd = pass system;
          default-user = unread;
          files = {
            derived = {
              vault-name = "a";
              cmd = "${pass system} a";
            };
            own = {
              vault-name = "b";
              cmd = "${package "gopass" here}/bin/gopass b";
            };
          };
        };
        tasks = [ "rebuild" ];
        extraTasks.show = {
          dir = ./.;
          cmds = [ "echo ${self}" ];
        };
      };
      users = system: {
        alice.lollypops.secrets = (upstream system).secrets;
        bob.lollypops.secrets.files = { };
        carol = { };
      };
      host = system: {
        pkgs.stdenv.hostPlatform = { inherit system; };
        config.lollypops = upstream system;
        config.home-manager.users = users system;
      };
    in
    {
      nixosConfigurations = {
        "ours.example" = {
          pkgs = unread;
          config.home-manager = unread;
          config.lollypops = {
            deployment = unread;
            manifest = {
              schema = 1;
              secrets.files.a.cmd = "${package "tool" here}/bin/tool ${package "other" here} ${./flake.nix}";
            };
          };
        };
        same = host here;
        foreign = host "riscv64-linux";
        misspelt.config.lollypops = {
          deployment.ssh.hots = "web1";
          deployment.ssh.package = package "extra" here;
          secrets.function = x: x;
          taskz = [ ];
        };
        image.config = { };
        odd = 1;
        broken.config = throw "the broken host was evaluated";
      };
    };
}
