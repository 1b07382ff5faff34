"""Exported vectors and baked models in llama.cpp: the same steered logits?

A random Llama of 4 blocks is written as GGUF in float32. llama.cpp runs it on token ids: as it is, with an exported
control vector (``llama_set_adapter_cvec``, as ``--control-vector`` does), and with the vector baked into its weights,
which is the only way to steer block 0 there. The greatest difference from our own steered logits is printed, as a share
of the logits' size. Bound: 1e-4, where steering moves the logits by more than 0.1 of their size.

llama-cpp-python is built once by pip in an environment of its own below ``benchmarks/.peers``.

    python benchmarks/llama_cpp.py      # seconds; five minutes on two free cores to build at first
"""

import ctypes
import json
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOOLS = ["llama-cpp-python==0.3.36", "gguf==0.19.0"]
BOUND = 1e-4
IDS = [5, 6, 7, 8, 9, 10, 11, 12, 5, 13]


def environment() -> Path:
    """The Python of the tools' environment, made if need be."""
    folder = HERE / ".peers/llama-cpp"
    python = folder / "bin/python"
    if not (folder / "ready").is_file():
        print(f"Building {', '.join(TOOLS)} in {folder} ...", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        (HERE / ".peers/.gitignore").write_text("*\n")
        within = next(folder.glob("lib/python*/site-packages"))
        (within / "project.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n{HERE.parent}\n")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *TOOLS], check=True)
        (folder / "ready").touch()
    return python


def main() -> int:
    """Write, run, compare."""
    try:
        python = environment()
    except subprocess.CalledProcessError:
        print("llama_cpp: llama-cpp-python cannot be built here; nothing was compared")
        return 0
    with tempfile.TemporaryDirectory() as name:
        completed = subprocess.run(
            [str(python), __file__, "--inside", name], stdout=subprocess.PIPE, text=True, check=False
        )
    if completed.returncode:
        print("llama_cpp: it failed, see above")
        return 1
    return report(json.loads(completed.stdout.splitlines()[-1]))


def report(differences: dict[str, float]) -> int:
    """Print the differences; return 1 if one is beyond the bound."""
    moved = differences.pop("moved")
    for case, difference in differences.items():
        print(f"{case:44} {difference:.1e}   {'ok' if difference <= BOUND else 'FAIL'}")
        told = f"greatest difference of llama.cpp's logits, {case}; steering moves them by up to {moved:.2f}"
        line = {"ratio": difference, "low": difference, "high": difference, "n": 1, "holds": difference <= BOUND}
        print(json.dumps({"benchmark": "llama.cpp", **line, "bound": f"<= {BOUND:g}", "told": told}))
    return 0 if moved > 0.1 and max(differences.values()) <= BOUND else 1


def write_model(path: Path, model: Any) -> None:
    """Write a Llama of transformers as GGUF, float32, without a tokenizer."""
    import gguf

    config, state = model.config, {name: t.float().numpy() for name, t in model.state_dict().items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_file_type(0)
    names = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    writer.add_tensor("output.weight", state["lm_head.weight"])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in state.items():
        if not name.startswith("model.layers."):
            continue
        layer, _, rest = name.removeprefix("model.layers.").partition(".")
        module, _, kind = rest.rpartition(".")
        role = names[module]
        if role in heads:  # llama.cpp pairs neighbouring dimensions in its rotation, transformers halves
            shape = tensor.shape
            tensor = tensor.reshape(heads[role], 2, -1, *shape[1:]).swapaxes(1, 2).reshape(shape)
        writer.add_tensor(f"blk.{layer}.{role}.{kind}", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run(path: Path, control: Path | None = None, precision: int = 0) -> Any:
    """Return the logits ``[T, V]`` of llama.cpp for the token ids, with a control vector or without.

    ``precision`` is that of its key-value cache in ggml's numbering: 0 is float32, 1 float16.
    """
    import gguf
    import numpy as np
    from llama_cpp import llama_cpp as lib

    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    options = lib.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_threads = 64, 64, 1
    options.type_k, options.type_v, options.flash_attn_type = precision, precision, 0  # its own default is float16
    context = lib.llama_init_from_model(model, options)
    width, layers = lib.llama_model_n_embd(model), lib.llama_model_n_layer(model)
    if control is not None:  # as common_control_vector_load fills it: layer 1 comes first
        data = np.zeros((layers - 1, width), np.float32)
        for tensor in gguf.GGUFReader(control).tensors:
            data[int(tensor.name.removeprefix("direction.")) - 1] = tensor.data
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        code = lib.llama_set_adapter_cvec(context, pointer, data.size, width, 1, layers)
        assert code == 0, code
    batch = lib.llama_batch_init(len(IDS), 0, 1)
    batch.n_tokens = len(IDS)
    for i, token in enumerate(IDS):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    assert lib.llama_decode(context, batch) == 0
    size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    rows = [np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (size,)).copy() for i in range(len(IDS))]
    lib.llama_batch_free(batch)
    lib.llama_free(context)
    lib.llama_model_free(model)
    return np.stack(rows)


def inside(folder: Path) -> dict[str, float]:
    """In the tools' environment: differences by case."""
    sys.path[0] = str(HERE.parent / "tests")  # this file is called like the tool's package
    import torch
    from conftest import rows
    from decoders import decoder, letters

    from lightning_steer import vectors
    from lightning_steer.lm.language_model import LLM
    from lightning_steer.methods import MeanDifference
    from lightning_steer.vectors import exchange
    from lightning_steer.vectors.bake import bake

    decoder("llama").save_pretrained(folder / "model")
    letters().save_pretrained(folder / "model")
    write_model(folder / "model.gguf", decoder("llama"))
    ids, differences = torch.tensor([IDS]), dict[str, float]()

    def steered(layers: list[int]) -> tuple[Any, Any]:
        llm = LLM(str(folder / "model"), layers)
        llm.load()
        maps: dict[str, Any] = {site: MeanDifference(32).fit(rows(i, d=32)) for i, site in enumerate(llm.sites)}
        vector = vectors.of(llm, maps, 1.5)
        with vectors.edit(llm, vector), torch.no_grad():
            return vector, llm.model(ids).logits[0].numpy()

    def share(logits: Any, expected: Any) -> float:
        return float(abs(logits - expected).max() / abs(expected).max())

    with torch.no_grad():
        plain = decoder("llama")(ids).logits[0].numpy()
    differences["not steered"] = share(run(folder / "model.gguf"), plain)
    for layers in ([1, 2], [3]):
        vector, expected = steered(layers)
        exchange.export(vector, folder / "v.gguf", "gguf")
        differences[f"control vector at blocks {layers}"] = share(
            run(folder / "model.gguf", folder / "v.gguf"), expected
        )
    differences["moved"] = share(plain, expected)
    for layers in ([1, 2], [0]):
        vector, expected = steered(layers)
        bake(vector, folder / f"baked{layers[0]}")
        baked = LLM(str(folder / f"baked{layers[0]}"), 0)
        baked.load()
        write_model(folder / "baked.gguf", baked.model)
        differences[f"baked at blocks {layers}"] = share(run(folder / "baked.gguf"), expected)
    return differences


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        print("\n" + json.dumps(inside(Path(sys.argv[2]))))
    else:
        sys.exit(main())
